"""Record the number of experts of each token, by hooks from outside the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leandit.grid import Grid
from leandit.models import Backbone
from leandit.moe import RouterOutput, routers
from leandit.probing.passes import PassRecorder


@dataclass(frozen=True)
class ComputeTrace:
    """Experts per token for every pass through the model: call, layer, sample, token.

    `times[c]` is t of call c: 0 is data, 1 is noise. `layers` are the names of the MoE layers in order of depth. Tokens
    are the patches of `grid`, row by row.
    """

    experts: Float[Tensor, "calls layers batch tokens"]
    times: Float[Tensor, " calls"]
    layers: tuple[str, ...]
    grid: Grid

    def by_time(self) -> tuple[Float[Tensor, " times"], Float[Tensor, "times layers"]]:
        """Return the distinct times, ascending, and each layer's mean experts per token at each time."""
        times, position = self.times.unique(return_inverse=True)
        means = self.experts.mean((2, 3))
        sums = torch.zeros(len(times), means.shape[1]).index_add(0, position, means)
        return times, sums / position.bincount()[:, None]


class ComputeRecorder(PassRecorder):
    """Records the number of experts of each token: a call of the trace for each pass."""

    def __init__(self, model: Backbone, batch: int) -> None:
        super().__init__(model, batch)
        self.grid = model.grid
        self._experts: list[Tensor] = []
        self._names = tuple(name.removesuffix(".moe.router") for name, _ in routers(model))

    def hooks(self) -> Iterator[tuple[nn.Module, Callable[..., None]]]:
        """Yield the routers."""
        yield from ((router, self._note_experts) for _, router in routers(self.model))

    def trace(self) -> ComputeTrace:
        """Return the calls recorded so far."""
        experts = torch.stack(self._experts).unflatten(0, (len(self._times), -1))
        # A router that all layers share is called once per layer.
        shared = len(self._names) != experts.shape[1]
        names = tuple(f"layer {i}" for i in range(experts.shape[1])) if shared else self._names
        return ComputeTrace(experts, torch.tensor(self._times), names, self.grid)

    def latest(self) -> Float[Tensor, "layers batch tokens"]:
        """Return the experts per token of the last call only."""
        layers = len(self._experts) // len(self._times)
        return torch.stack(self._experts[-layers:])

    def _note_time(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        super()._note_time(module, arguments)
        self.grid = self.model.grid_of(arguments[0])

    def _note_experts(self, module: nn.Module, arguments: tuple[Any, ...], output: RouterOutput) -> None:
        self._experts.append(output.mask[: self.batch].sum(-1).float().cpu())
