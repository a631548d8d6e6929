"""compute.png: where the experts went, over the picture and over the timestep."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from leandit.probing.figure import new_figure, plain_legend
from leandit.probing.recorder import ComputeTrace

# Characters that fit beside a picture.
_LABEL_WIDTH = 18
_MOMENTS = (0.9, 0.7, 0.5, 0.3, 0.1)


def plot_compute(
    trace: ComputeTrace,
    pictures: UInt8[Tensor, "batch height width channels"],
    names: Sequence[str],
    k: int,
    path: Path,
) -> None:
    """Write a figure with one row per picture (the picture, its mean map, maps at five times) and a curve below.

    A map shows experts per token, averaged over the layers; the curve shows the mean over tokens against t for
    every layer, with the budget k that training keeps on average.

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
    """Return (1 + moments, batch, rows, columns): the mean map, then the one of the call nearest each moment."""
    per_call = trace.experts.mean(1).unflatten(-1, (trace.grid.height, trace.grid.width)).numpy()
    calls = [int((trace.times - moment).abs().argmin()) for moment in _MOMENTS]
    return np.concatenate([per_call.mean(0, keepdims=True), per_call[calls]])


def _draw_row(axes: Any, picture: Tensor, name: str, maps: np.ndarray, scale: dict[str, Any]) -> Any:
    axes[0].imshow(picture.numpy().squeeze(), cmap="gray", vmin=0, vmax=255)
    axes[0].set_ylabel(textwrap.fill(name, _LABEL_WIDTH), fontsize=10, parse_math=False)
    for axis, grid_map in zip(axes[1:], maps, strict=True):
        image = axis.imshow(grid_map, **scale)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    return image


def _draw_curve(axis: Any, trace: ComputeTrace, k: int) -> None:
    times, means = trace.by_time()
    for layer, name in enumerate(trace.layers):
        axis.plot(times, means[:, layer], label=name, alpha=0.6, linewidth=1.2)
    axis.plot(times, means.mean(1), color="black", linewidth=2.2, label="all layers")
    axis.axhline(k, color="gray", linestyle="--", linewidth=1, label=f"budget k = {k}")
    axis.set_xlabel("t  (0 = picture, 1 = noise)")
    axis.set_ylabel("experts per token")
    axis.set_title("Mean over the picture against the timestep", fontsize=10)
    if len(trace.layers) <= 16:
        plain_legend(axis, fontsize=8, ncols=2)
    axis.set_xlim(0, 1)
    axis.set_ylim(bottom=0)
