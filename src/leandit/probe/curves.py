"""loss.png: the losses of a run, and how evenly its experts were used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leandit.probe.figure import new_figure, plain_legend


def plot_curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a figure from the records of metrics.jsonl: loss terms on the left, MaxVio per layer on the right."""
    violations = sorted({key for record in records for key in record if key.startswith("max_violation/")}, key=_depth)
    figure = new_figure(11.5 if violations else 7.0, 4.2)
    axes = figure.subplots(1, 2 if violations else 1, squeeze=False)[0]
    steps = [record["step"] for record in records]
    for name in ("mse", "vlb", "per_layer_regularisation", "router_similarity", "load_balance", "z_loss"):
        if any(name in record for record in records):
            axes[0].plot(
                steps,
                _column(records, name),
                label=name.replace("_", " "),
                linewidth=2 if name == "mse" else 1,
            )
    axes[0].set_yscale("log")
    axes[0].set_title("Loss", fontsize=11)
    for key in violations:
        axes[1].plot(steps, _column(records, key), label=key.split("/")[1].removesuffix(".moe"), linewidth=1)
    if violations:
        axes[1].set_title("MaxVio: the busiest expert's excess over its fair share", fontsize=11)
        axes[1].set_ylim(bottom=0)
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if len(axis.lines) <= 16:
            plain_legend(axis, fontsize=8)
    figure.savefig(path, dpi=110)


def _column(records: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([record.get(name, np.nan) for record in records], dtype=float)


def _depth(key: str) -> tuple[int, str]:
    digits = "".join(c for c in key if c.isdigit())
    return (int(digits) if digits else 0, key)
