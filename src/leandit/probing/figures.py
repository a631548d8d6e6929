"""Figures as PNG files, without a display: compute.png shows the experts per token, loss.png the losses."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from leandit.probing.recorder import ComputeTrace
from leandit.sampling.lettering import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


RUN_COLOURS = ("#3454d1", "#e8590c")
"""The colours of two runs that are compared."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches. matplotlib is imported here, because its import takes half a second."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_legend(axis: Axes, **options: Any) -> None:
    """Add a legend with literal names. By default matplotlib reads text between dollar signs as a formula."""
    for text in axis.legend(**options).get_texts():
        text.set_parse_math(False)


# Largest number of characters that fit beside a picture.
_LABEL_WIDTH = 18
_MOMENTS = (0.9, 0.7, 0.5, 0.3, 0.1)


def plot_compute(
    trace: ComputeTrace,
    pictures: UInt8[Tensor, "batch height width channels"],
    names: Sequence[str],
    k: int | float,
    path: Path,
) -> None:
    """Write a figure with one row per picture (the picture, its mean map, maps at five times) and curves below.

    A map shows experts per token, averaged over the layers. The curves show the mean over tokens against t, one per
    layer, and the budget k, which is the mean in training.

    Reference: Expert Race, Figure 6.
    """
    count = len(pictures)
    rows = 1.5 * count * min(max(trace.grid.height / trace.grid.width, 0.6), 2.0)
    figure = new_figure(11.5, rows + 3.4)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[rows, 3.4])[:, 0]
    axes = top.subplots(count, 2 + len(_MOMENTS), squeeze=False)
    maps = _maps(trace)
    scale = {"vmin": 0.0, "vmax": float(np.percentile(maps, 99.5)), "cmap": "inferno"}
    for row in range(count):
        image = _draw_row(axes[row], pictures[row], names[row], maps[:, row], scale)
    for axis, title in zip(axes[0], ["picture", "mean over t", *(f"t = {t:.1f}" for t in _MOMENTS)], strict=True):
        axis.set_title(title, fontsize=10)
    bar = top.colorbar(image, ax=axes, shrink=0.8, pad=0.01)
    bar.set_label("experts per token")
    _draw_curve(bottom.subplots(1, 1), trace, k)
    figure.savefig(path, dpi=110)


def _maps(trace: ComputeTrace) -> np.ndarray:
    """Return (1 + moments, batch, rows, columns): the mean map, then the map of the call nearest to each moment."""
    per_call = trace.experts.mean(1).unflatten(-1, (trace.grid.height, trace.grid.width)).numpy()
    calls = [int((trace.times - moment).abs().argmin()) for moment in _MOMENTS]
    return np.concatenate([per_call.mean(0, keepdims=True), per_call[calls]])


def _draw_row(axes: Any, picture: Tensor, name: str, maps: np.ndarray, scale: dict[str, Any]) -> Any:
    axes[0].imshow(picture.numpy().squeeze(), cmap="gray", vmin=0, vmax=255)
    axes[0].set_ylabel(textwrap.fill(drawable(name), _LABEL_WIDTH), fontsize=10, parse_math=False)
    for axis, grid_map in zip(axes[1:], maps, strict=True):
        image = axis.imshow(grid_map, **scale)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    return image


def _draw_curve(axis: Any, trace: ComputeTrace, k: int | float) -> None:
    times, means = trace.by_time()
    for layer, name in enumerate(trace.layers):
        axis.plot(times, means[:, layer], label=name, alpha=0.6, linewidth=1.2)
    axis.plot(times, means.mean(1), color="black", linewidth=2.2, label="all layers")
    axis.axhline(k, color="gray", linestyle="--", linewidth=1, label=f"budget k = {k:g}")
    axis.set_xlabel("t  (0 = picture, 1 = noise)")
    axis.set_ylabel("experts per token")
    axis.set_title("Mean over the picture against t", fontsize=10)
    if len(trace.layers) <= 16:
        plain_legend(axis, fontsize=8, ncols=2)
    axis.set_xlim(0, 1)
    axis.set_ylim(bottom=0)


_LOSSES = (
    *("mse", "validation_loss", "vlb"),
    *("per_layer_regularisation", "router_similarity", "load_balance", "gshard_balance", "z_loss"),
)


def plot_curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a figure from the records of metrics.jsonl: loss terms on the left, MaxVio per layer on the right."""
    violations = sorted({key for record in records for key in record if key.startswith("max_violation/")}, key=_depth)
    figure = new_figure(11.5 if violations else 7.0, 4.2)
    axes = figure.subplots(1, 2 if violations else 1, squeeze=False)[0]
    # What the progress shows; without further terms it is the same as the objective's.
    total = _column(records, "loss")
    if any(name in record for record in records for name in _LOSSES[3:]) or not _column(records, "mse")[0]:
        axes[0].plot(*total, label="loss: all terms", color="black", linewidth=1)
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
