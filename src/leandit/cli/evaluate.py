"""`leandit evaluate`: measure what a run draws, or put two results side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from leandit.api import evaluate
from leandit.cli.output import say
from leandit.cli.progress import SamplingProgress
from leandit.errors import LeanDiTError
from leandit.evaluation.compare import compare
from leandit.evaluation.runner import DEFAULT_METRICS


def run(options: argparse.Namespace) -> int:
    """Do what the options ask for: compare two results, or evaluate a run and print its numbers."""
    if options.compare:
        return _compare(Path(options.compare[0]), Path(options.compare[1]), options.anyway)
    if options.folder is None:
        raise LeanDiTError("name a run, as in `leandit evaluate runs/quickstart`, or two results with --compare")
    if options.anyway:
        raise LeanDiTError("--anyway belongs to --compare")
    with SamplingProgress("pictures") as progress:
        result = evaluate(
            options.folder,
            options.metrics or DEFAULT_METRICS,
            options.num_samples,
            reference=options.reference,
            steps=options.steps,
            guidance=options.guidance,
            weights=options.weights,
            device=options.device,
            precision=options.precision,
            batch_size=options.batch_size,
            out=options.out,
            weights_from=_paths(options.weights_from),
            download=options.download,
            progress=progress,
            log=say,
        )
    if result.path is None:
        return 0
    width = max(len(name) for name in result.values)
    say()
    for name, value in result.values.items():
        say(f"{name:<{width}}  {value:>10.4f}")
    say()
    if result.note is not None:
        say(result.note)
    say(f"The numbers and all that they depend on: {result.path}")
    return 0


def _compare(first: Path, second: Path, anyway: bool) -> int:
    """Print the numbers of two results side by side."""
    found = compare(first, second, anyway)
    for record in found.records:
        say(f"{record['run'].get('name')} at step {record['run'].get('step')} ({record['run'].get('path')})")
    width = max(len(name) for name, *_ in found.rows)
    for name, *values in found.rows:
        say(f"{name:<{width}}  " + "  ".join("         -" if value is None else f"{value:>10.4f}" for value in values))
    if found.differences:
        say("Not comparable, since these differ:")
        for difference in found.differences:
            say(f"  {difference}")
    return 0


def _paths(given: Sequence[str]) -> dict[str, str]:
    paths = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise LeanDiTError(f"--weights-from {text[:80]}: expected NAME=PATH, as in inception=weights.pth")
        paths[name] = path
    return paths
