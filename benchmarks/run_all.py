"""Run all benchmarks of speed on the machine at hand and write their results file.

    python benchmarks/run_all.py [--quick] [--out FILE]     (make bench)

Nothing else should run meanwhile. The file is benchmarks/results/MACHINE_DATE.md unless said otherwise.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import growth
import moe_layer
import profile_models
import selection
import whole_model
from contest import device, processor, setting, today
from leandit.run.resolve import fast_bf16


def main() -> None:
    """Run the benchmarks one after the other; what is done is written even if a later one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="some cells of each")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rounds = 5
    name = re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-")
    out = options.out or Path(__file__).parent / "results" / f"{name}_{today()}.md"
    command = shlex.join(["python", "benchmarks/run_all.py", *sys.argv[1:]])
    parts = [f"# Speed\n\n{setting()}\n\n    {command}\n\nMedians over {rounds} alternating rounds.\n"]
    benchmarks: tuple[tuple[Callable[..., str], tuple[object, ...]], ...] = (
        (selection.report, (rounds,)),
        (moe_layer.report, (rounds, options.quick)),
        (growth.report, (rounds,)),
        (whole_model.report, (rounds, options.quick)),
    )
    if device() == "cpu":
        benchmarks += ((profile_models.report, (next(iter(whole_model.TWINS)), fast_bf16("cpu"))),)
    # Each in a process of its own, whose heap holds nothing of the others, as that of a training does.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for report, arguments in benchmarks:
            parts.append(pool.submit(report, *arguments).result())
            out.write_text("\n".join(parts), encoding="utf-8")
    print(f"results in {out}")


if __name__ == "__main__":
    main()
