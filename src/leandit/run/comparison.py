"""Runs side by side: the settings in which they differ, and their numbers over the steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leandit.config.tree import leaves
from leandit.errors import LeanDiTError
from leandit.run.folder import RunFolder
from leandit.run.listing import RunSummary, list_runs
from leandit.run.metrics import read_metrics

Curve = tuple[list[int], list[float]]
"""Steps, and a value for each."""
IMBALANCE = "imbalance of the experts (MaxVio, 0 is even)"
_CURVES = ("loss", "validation_loss", "gradient_norm", "images_per_second")


@dataclass(frozen=True)
class RunComparison:
    """What differs between runs.

    `settings` has, for each key in which they differ, a value for each run; None if its configuration has no such key.
    `curves` has, for each name, a curve for each run, which is empty if the run does not log it. IMBALANCE is MaxVio,
    the busiest expert's excess over its fair share, as a mean over the layers.
    """

    runs: tuple[RunSummary, ...]
    settings: Mapping[str, tuple[Any, ...]]
    curves: Mapping[str, tuple[Curve, ...]]


def compare(runs: Iterable[str | Path]) -> RunComparison:
    """Compare runs, or all runs in folders, those that changed last first; nothing is loaded or changed.

    Raises LeanDiTError for fewer than two runs, or for a run that cannot be read.
    """
    found = tuple(list_runs(runs))
    damaged = [f"{run.path}: {run.problem}" for run in found if run.problem is not None]
    if damaged:
        raise LeanDiTError("\n".join(damaged))
    if len(found) < 2:
        raise LeanDiTError("a comparison needs at least two runs; `leandit runs` lists them")
    folders = [RunFolder(run.path) for run in found]
    trees = [dict(leaves(folder.read_config().model_dump(mode="json"))) for folder in folders]
    keys = sorted({key for tree in trees for key in tree} - {"name"})
    values = {key: tuple(tree.get(key) for tree in trees) for key in keys}
    settings = {key: each for key, each in values.items() if any(value != each[0] for value in each)}
    records = [read_metrics(folder.metrics) if folder.metrics.exists() else [] for folder in folders]
    curves = {name: tuple(_curve(run, name) for run in records) for name in _CURVES}
    curves[IMBALANCE] = tuple(map(_imbalance, records))
    return RunComparison(found, settings, {name: each for name, each in curves.items() if any(x for x, _ in each)})


def _curve(records: Sequence[Mapping[str, Any]], name: str) -> Curve:
    logged = [record for record in records if name in record]
    return [record["step"] for record in logged], [float(record[name]) for record in logged]


def _imbalance(records: Sequence[Mapping[str, Any]]) -> Curve:
    steps, means = [], []
    for record in records:
        layers = [float(value) for key, value in record.items() if key.startswith("max_violation/")]
        if layers:
            steps.append(record["step"])
            means.append(sum(layers) / len(layers))
    return steps, means
