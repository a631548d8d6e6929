"""What makes experts go to the content of a picture? One short run of a preset for each change of its settings.

    python benchmarks/allocation.py OUT [--preset quickstart] [--steps 400] [--only NAME ...]

Each run adds a line to OUT/runs.jsonl: its settings, `allocation` as `leandit probe` reports it (on 64 real pictures),
and the agreement of 256 samples with their labels (`benchmarks/label_agreement.py`). OUT/NAME.png shows samples. Runs
that OUT has already are not repeated. OUT/table.md is the table of all lines.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

import leandit
from label_agreement import agreement
from leandit.data import build_source
from leandit.presets import run_config
from leandit.probing.content import content_report, record_content

_X0, _VELOCITY = (("objective.prediction=x0",), ("objective.prediction=velocity",))
_PIXELS, _WHITE = (("codec=null",), ("codec.type=pixels", "codec.shift=1"))
_LAYER_LOSS = ("model.moe.per_layer_regularisation=true", "losses.per_layer_regularisation=0.1")
_NO_LAYER_LOSS = ("model.moe.per_layer_regularisation=false", "losses.per_layer_regularisation=0")
_BASE, _BEST = (*_VELOCITY, *_WHITE, *_LAYER_LOSS), (*_VELOCITY, *_WHITE, *_NO_LAYER_LOSS)
VARIANTS: dict[str, tuple[str, ...]] = {
    "x0": (*_X0, *_PIXELS, *_LAYER_LOSS),
    "velocity": (*_VELOCITY, *_PIXELS, *_LAYER_LOSS),
    "x0, white is 0": (*_X0, *_WHITE, *_LAYER_LOSS),
    "velocity, white is 0": _BASE,
    "velocity, white is 0, scale 0.5": (*_BASE, "codec.scale=0.5"),
    "velocity, white is 0, layer loss 0.01": (*_BASE, "losses.per_layer_regularisation=0.01"),
    "velocity, white is 0, no layer loss": _BEST,
    "velocity, no layer loss": (*_VELOCITY, *_PIXELS, *_NO_LAYER_LOSS),
    "x0, white is 0, no layer loss": (*_X0, *_WHITE, *_NO_LAYER_LOSS),
    "x0, no layer loss": (*_X0, *_PIXELS, *_NO_LAYER_LOSS),
    "best, sigmoid": (*_BEST, "model.moe.gate=sigmoid"),
    "best, softmax": (*_BEST, "model.moe.gate=softmax"),
    "best, plain router input": (*_BEST, "model.moe.router_input=plain"),
    "best, expert choice": (*_BEST, "model.moe.strategy=expert_choice", "losses.router_similarity=0"),
    "best, bl_choice": (*_BEST, "model.moe.strategy=bl_choice"),
    "best, no similarity loss": (*_BEST, "losses.router_similarity=0"),
    "best, AdamW": (*_BEST, "optimizer.type=adamw", "optimizer.lr=0.002"),
}
"""Settings of the preset by name. "best" is velocity, white is 0, no layer loss."""


def measure(name: str, preset: str, steps: int, out: Path) -> dict[str, object]:
    """Train, probe and draw one variant."""
    folder = out / f"{name.replace(' ', '-').replace(',', '')}-{steps}"
    config = run_config(preset, [*VARIANTS[name], f"train.steps={steps}", "sampling.grid=10"])
    assert leandit.train(config, folder) == 0
    run = leandit.load(folder)
    allocation = content_report(record_content(run, build_source(run.config.data.source)))
    found = agreement(run, 256)
    drawn = found.pop("drawn")
    count = len(run.class_names)
    rows = [np.concatenate(list(part[:12]), 1) for part in np.array_split(drawn, count)]
    Image.fromarray(np.concatenate(rows)).save(out / f"{folder.name}.png")
    losses = [json.loads(line)["mse"] for line in (folder / "metrics.jsonl").read_text().splitlines() if "mse" in line]
    loss = float(np.mean(losses[-10:]))
    return {"name": name, "preset": preset, "steps": steps, "allocation": allocation, "loss": loss, **found}


def table(lines: list[dict[str, object]]) -> str:
    """Return the measured runs as a table of Markdown."""
    titles = (
        "run",
        "steps",
        "detail over flat",
        "by layer",
        "at t = 0.9 ... 0.1",
        "error",
        "label agreement",
        "distance",
    )
    head = f"| {' | '.join(titles)} |"
    rows = [head, "| --- " * 8 + "|"]
    for line in lines:
        a = line["allocation"]
        agree = line["agree"]
        layers, times = (" ".join(f"{v:.2f}" for v in a[key]) for key in ("by_layer", "over_time"))
        cells = (
            *(line["name"], line["steps"], f"{a['detail_over_flat']:.2f}", layers, times),
            *(f"{a['error_correlation']:.2f}", " ".join(f"{v:.1%}" for v in agree.values()), f"{line['distance']:.3f}"),
        )
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", default="quickstart")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "runs.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for name in options.only:
        if any((line["name"], line["steps"]) == (name, options.steps) for line in lines):
            continue
        lines.append(measure(name, options.preset, options.steps, options.out))
        with file.open("a") as stream:
            stream.write(json.dumps(lines[-1]) + "\n")
        (options.out / "table.md").write_text(table(lines))
        print(table(lines[-1:]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
