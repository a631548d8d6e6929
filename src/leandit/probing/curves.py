"""loss.png: the losses of a run, and how evenly its experts were used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leandit.probing.figure import new_figure, plain_legend

_LOSSES = (
    *("mse", "validation_loss", "vlb"),
    *("per_layer_regularisation", "router_similarity", "load_balance", "gshard_balance", "z_loss"),
)


def plot_curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a figure from the records of metrics.jsonl: loss terms on the left, MaxVio per layer on the right."""
    violations = sorted({key for record in records for key in record if key.startswith("max_violation/")}, key=_depth)
    figure = new_figure(11.5 if violations else 7.0, 4.2)
    axes = figure.subplots(1, 2 if violations else 1, squeeze=False)[0]
    for name in _LOSSES:
        steps, values = _column(records, name)
        if steps:
            axes[0].plot(steps, values, label=name.replace("_", " "), linewidth=2 if name == "mse" else 1)
    axes[0].set_yscale("log")
    axes[0].set_title("Loss", fontsize=11)
    for key in violations:
        axes[1].plot(*_column(records, key), label=key.split("/")[1].removesuffix(".moe"), linewidth=1)
    if violations:
        axes[1].set_title("MaxVio: the busiest expert's excess over its fair share", fontsize=11)
        axes[1].set_ylim(bottom=0)
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if len(axis.lines) <= 16:
            plain_legend(axis, fontsize=8)
    figure.savefig(path, dpi=110)


def _column(records: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Return the steps at which a value was logged, and the values."""
    logged = [record for record in records if name in record]
    return [record["step"] for record in logged], [record[name] for record in logged]


def _depth(key: str) -> tuple[int, str]:
    digits = "".join(c for c in key if c.isdigit())
    return (int(digits) if digits else 0, key)
