"""The base of optimisers that update many tensors with one call of torch's multi-tensor kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

# Weights per call. An update needs temporary tensors of this size, and kernels of this size fill any device.
_MOST = 2**26


class ChunkedOptimizer(torch.optim.Optimizer):
    """An optimiser that updates parameters in chunks, and never waits for the device.

    A subclass implements `update`. Its operations treat every tensor on its own, so chunks do not change the result.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        if closure is not None:
            raise NotImplementedError(f"{type(self).__name__} does not support a closure")
        for group in self.param_groups:
            for parameters in _chunks([p for p in group["params"] if p.grad is not None]):
                self.update(parameters, [p.grad for p in parameters if p.grad is not None], group)

    def update(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """Update these parameters with the options of their group."""
        raise NotImplementedError


def _chunks(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the parameters in order, in lists of at most `_MOST` weights or of one parameter."""
    chunk: list[Tensor] = []
    size = 0
    for parameter in parameters:
        if chunk and size + parameter.numel() > _MOST:
            yield chunk
            chunk, size = [], 0
        chunk.append(parameter)
        size += parameter.numel()
    if chunk:
        yield chunk
