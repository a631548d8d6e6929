"""The norms of the blocks' outputs, which runs without experts have as well: recorded, reported and drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from leandit.errors import LeanDiTError
from leandit.models import Backbone
from leandit.models.records import LayerOutput
from leandit.nn import Layer
from leandit.probing.figures import RUN_COLOURS, new_figure, plain_legend
from leandit.probing.passes import PassRecorder
from leandit.sampling.lettering import drawable


@dataclass(frozen=True)
class NormTrace:
    """L2 norms for every pass through the model, averaged over a picture's tokens.

    `norms[..., 0]` is the norm of the residual stream after a block, and `norms[..., 1]` that of what the block adds to
    it, after its gates. `times[c]` is t of call c: 0 is data, 1 is noise.

    Reference: Expert Race, Figure 5.
    """

    times: Float[np.ndarray, " calls"]
    norms: Float[np.ndarray, "calls blocks batch 2"]

    def by_time(self) -> tuple[Float[np.ndarray, " times"], Float[np.ndarray, "times blocks 2"]]:
        """Return the distinct times, ascending, and the mean over calls and pictures at each."""
        times, position = np.unique(self.times, return_inverse=True)
        per_call = self.norms.mean(2)
        return times, np.stack([per_call[position == index].mean(0) for index in range(len(times))])


class NormRecorder(PassRecorder):
    """Records the norms of the blocks' outputs: a call of the trace for each pass."""

    def __init__(self, model: Backbone, batch: int) -> None:
        super().__init__(model, batch)
        self._norms: list[np.ndarray] = []

    def hooks(self) -> Iterator[tuple[nn.Module, Callable[..., None]]]:
        """Yield the layers."""
        yield from ((layer, self._note_layer) for layer in recorded(self.model))

    def trace(self) -> NormTrace:
        """Return the calls recorded so far."""
        return NormTrace(np.array(self._times), stacked(self._norms, len(self._times), self.batch))

    def _note_layer(self, layer: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, LayerOutput):
            self._norms.append(layer_norms(arguments, output, self.batch))


def recorded(model: Backbone) -> list[Layer]:
    """Return the layers whose norms are recorded; a backbone of other modules has none."""
    return [layer for layer in model.blocks if isinstance(layer, Layer)]


def stacked(norms: Sequence[np.ndarray], calls: int, batch: int) -> Float[np.ndarray, "calls blocks batch 2"]:
    """Return the norms of all layers in all calls as one array, with 0 blocks if none were recorded."""
    if not norms:
        return np.zeros((calls, 0, batch, 2), np.float32)
    return np.stack(norms).reshape(calls, -1, batch, 2)


def layer_norms(arguments: tuple[Any, ...], output: LayerOutput, batch: int) -> Float[np.ndarray, "{batch} 2"]:
    """Return the norms of one call of a layer, from the arguments and the result that a forward hook gets."""
    before = arguments[1 if output.text is None else 2]  # after the shared parts, and the text if there is one
    stream = output.image[:batch].float()
    norms = [y.norm(dim=-1).mean(-1) for y in (stream, stream - before[:batch].float())]
    return torch.stack(norms, -1).detach().cpu().numpy()


def norm_report(trace: NormTrace) -> dict[str, Any]:
    """Return the entries of a report: norms by block, and by time and block.

    `growth` is what the last block adds over what the first one adds; None if the first adds nothing.
    """
    if not trace.norms.shape[1]:
        raise LeanDiTError(
            "the model's blocks are no `leandit.nn.Layer` that returns a LayerOutput, so their norms are unknown, and "
            "without experts there is nothing else to probe"
        )
    times, norms = trace.by_time()
    by_block = norms.mean(0)
    stream, added = by_block.T
    growth = added[-1] / added[0] if added[0] else None  # a fresh model adds nothing
    return {
        "layer": {"block_norms": {"stream": stream, "added": added, "growth": growth}},
        "timestep": {"times": times, "block_norms": {"stream": norms[:, :, 0], "added": norms[:, :, 1]}},
    }


def write_json(reports: Sequence[dict[str, Any]], out: Path) -> None:
    """Write report.json: the report, or {"runs": [one, other]} for two. Raises OSError if that fails."""
    out.mkdir(parents=True, exist_ok=True)
    tree = reports[0] if len(reports) == 1 else {"runs": list(reports)}
    (out / "report.json").write_text(json.dumps(tree, allow_nan=False) + "\n", encoding="utf-8")


def write_norms(reports: Sequence[dict[str, Any]], out: Path, figures: bool = True) -> None:
    """Write report.json and, with `figures`, norms.png."""
    write_json(reports, out)
    if figures:
        _plot(reports, out / "norms.png")


def _plot(reports: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw what each block adds for all runs, and for each run a map over time and block."""
    parts = [part for part in ("layer", "timestep") if part in reports[0]]
    columns = ("layer" in parts) + ("timestep" in parts) * len(reports)
    figure = new_figure(5.0 * columns, 4.0)
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    if "layer" in parts:
        _plot_blocks(axes.pop(0), reports)
    if "timestep" in parts:
        added = [np.array(report["timestep"]["block_norms"]["added"], float) for report in reports]  # None becomes nan
        highest = max((float(np.nanmax(values)) for values in added if np.isfinite(values).any()), default=1.0)
        for axis, report in zip(axes, reports, strict=True):
            image = _plot_times(axis, report, highest)
        figure.colorbar(image, ax=axes, label="L2 norm per token")
    figure.savefig(path, dpi=110)


def _plot_blocks(axis: Any, reports: Sequence[dict[str, Any]]) -> None:
    for report, colour in zip(reports, RUN_COLOURS, strict=False):
        norms, run = report["layer"]["block_norms"], report["run"]
        blocks = range(1, len(norms["added"]) + 1)
        label = f"{drawable(run['folder'])}, step {run['step']}"
        axis.plot(blocks, np.array(norms["added"], float), color=colour, marker="o", label=label)
    axis.set_title("L2 norm per token of what a block adds", fontsize=10)
    axis.set_xlabel("block")
    axis.set_ylim(bottom=0)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    plain_legend(axis, fontsize=8)


def _plot_times(axis: Any, report: dict[str, Any], highest: float) -> Any:
    """Draw one run's map, with noise on the left and the picture on the right."""
    times, added = report["timestep"]["times"], np.array(report["timestep"]["block_norms"]["added"], float)
    edges = np.arange(added.shape[1] + 1) + 0.5
    image = axis.pcolormesh(np.arange(len(times) + 1), edges, added[::-1].T, vmin=0, vmax=highest, cmap="inferno")
    shown = np.linspace(0, len(times) - 1, min(len(times), 6)).round().astype(int)
    axis.set_xticks(shown + 0.5, [f"{times[len(times) - 1 - index]:.2f}" for index in shown])
    axis.set_xlabel("t  (1 = noise, 0 = picture)")
    axis.set_ylabel("block")
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set_title(f"What a block adds: {drawable(report['run']['folder'])}", fontsize=10, parse_math=False)
    return image


def joined(traces: Sequence[NormTrace]) -> NormTrace:
    """Join the traces of several batches, drawn with the same sampler, to one trace of all their pictures."""
    return NormTrace(traces[0].times, np.concatenate([trace.norms for trace in traces], 2))
