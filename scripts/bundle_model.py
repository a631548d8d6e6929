"""Make a model that comes with the package out of a finished run: its averaged weights in bf16, and its log.

    leandit train emoji --out runs/emoji
    python scripts/bundle_model.py runs/emoji emoji

The weights go to src/leandit/bundled/NAME, the losses of the run to benchmarks/results/NAME_model.jsonl. What only
training needs, target heads and the optimiser, is left behind.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from leandit.run import read_metrics
from leandit.run.checkpoint import write_checkpoint
from leandit.run.folder import RunFolder
from leandit.run.weights import read_weights

ROOT = Path(__file__).parents[1]
MOST_BYTES = 8_000_000
# One line of the log in so many steps.
LOG_EVERY = 100


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    checkpoint, stored = read_weights(options.run, "ema")
    weights = {name: t.to(torch.bfloat16) for name, t in stored.items() if ".target_head." not in name}
    target = ROOT / "src/leandit/bundled" / options.name
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    # What it started from is a path of the machine that trained it.
    config = {**checkpoint.config, "start": None}
    write_checkpoint(target, checkpoint.step, {"ema": weights}, checkpoint.state, config, checkpoint.manifest.run)
    size = sum(file.stat().st_size for file in target.iterdir())
    if size > MOST_BYTES:
        raise SystemExit(f"{target}: {size:,} bytes, more than {MOST_BYTES:,}")
    log = ROOT / "benchmarks/results" / f"{options.name}_model.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in _losses(options.run)), encoding="utf-8")
    print(f"{target}: step {checkpoint.step}, {size:,} bytes; {log}")


def _losses(run: Path) -> list[dict[str, float]]:
    kept = ("step", "loss", "mse", "validation_loss", "learning_rate_factor")
    return [
        {key: round(value, 4) for key, value in line.items() if key in kept}
        for line in read_metrics(RunFolder(run).metrics)
        if line["step"] % LOG_EVERY == 0
    ]


if __name__ == "__main__":
    main()
