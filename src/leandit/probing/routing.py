"""Record every decision of every router, and the norms of the blocks' outputs, by hooks from outside the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import nn

from leandit.models import Backbone, Conditioning
from leandit.models.records import LayerOutput
from leandit.moe import RouterOutput
from leandit.probing.norms import layer_norms, recorded, stacked
from leandit.probing.recorder import ComputeRecorder, ComputeTrace


@dataclass(frozen=True)
class RoutingTrace(ComputeTrace):
    """The experts of every token in every pass, one bit per expert; see `mask`.

    Under guidance a picture has an unconditional twin in the same pass. Then `passes[c]` is 2, and `twin_pairs` counts
    the twin's pairs. `norms[..., 0]` is the L2 norm of the residual stream after a block, averaged over a picture's
    tokens; `norms[..., 1]` is that of the block's contribution. `text_tokens` includes padding.
    """

    packed: UInt8[np.ndarray, "calls layers batch tokens bytes"]
    num_experts: int
    twin_pairs: Int[np.ndarray, "calls layers batch"]
    passes: Int[np.ndarray, " calls"]
    text_tokens: Int[np.ndarray, "calls batch"]
    norms: Float[np.ndarray, "calls blocks batch 2"]

    def mask(self, layer: int) -> Bool[np.ndarray, "calls batch tokens experts"]:
        """Return the pairs of one layer, unpacked."""
        return np.unpackbits(self.packed[:, layer], axis=-1, count=self.num_experts).astype(bool)

    @property
    def counts(self) -> Int[np.ndarray, "calls layers batch tokens"]:
        """Experts per token, as integers."""
        return self.experts.numpy().astype(np.int64)


class RoutingRecorder(ComputeRecorder):
    """Records every decision of every router, and the norms: a call of the trace for each pass.

    The first `batch` samples of a pass are the pictures. Under guidance their twins follow.
    """

    def __init__(self, model: Backbone, batch: int) -> None:
        super().__init__(model, batch)
        self._packed: list[np.ndarray] = []
        self._twins: list[np.ndarray] = []
        self._passes: list[int] = []
        self._text: list[int] = []
        self._norms: list[np.ndarray] = []
        self._num_experts = 0

    def hooks(self) -> Iterator[tuple[nn.Module, Callable[..., None]]]:
        """Yield the routers, and the layers; those of a masking decoder have no routers and are not recorded."""
        yield from super().hooks()
        yield from ((layer, self._note_norms) for layer in recorded(self.model))

    def trace(self) -> RoutingTrace:
        """Return the calls recorded so far."""
        compute = super().trace()
        calls = len(compute.times)
        return RoutingTrace(
            compute.experts,
            compute.times,
            compute.layers,
            compute.grid,
            np.stack(self._packed).reshape(*compute.experts.shape, -1),
            self._num_experts,
            np.stack(self._twins).reshape(calls, -1, self.batch),
            np.array(self._passes),
            np.repeat(np.array(self._text)[:, None], self.batch, 1),
            stacked(self._norms, calls, self.batch),
        )

    def _note_time(self, module: Any, arguments: tuple[Any, ...]) -> None:
        super()._note_time(module, arguments)
        x, _, cond = arguments[:3]
        self._passes.append(len(x) // self.batch)
        self._text.append(_text_tokens(cond))

    def _note_experts(self, module: Any, arguments: tuple[Any, ...], output: RouterOutput) -> None:
        super()._note_experts(module, arguments, output)
        mask = output.mask.cpu().numpy()
        self._num_experts = mask.shape[-1]
        self._packed.append(np.packbits(mask[: self.batch], axis=-1))
        twins = mask[self.batch :].sum((1, 2), dtype=np.int64)
        self._twins.append(twins if len(twins) else np.zeros(self.batch, np.int64))

    def _note_norms(self, layer: Any, arguments: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, LayerOutput):
            self._norms.append(layer_norms(arguments, output, self.batch))


def join(traces: Sequence[RoutingTrace]) -> RoutingTrace:
    """Join the traces of several batches, drawn with the same sampler, to one trace of all their pictures."""
    first = traces[0]
    return RoutingTrace(
        torch.cat([trace.experts for trace in traces], 2),
        first.times,
        first.layers,
        first.grid,
        np.concatenate([trace.packed for trace in traces], 2),
        first.num_experts,
        np.concatenate([trace.twin_pairs for trace in traces], 2),
        first.passes,
        np.concatenate([trace.text_tokens for trace in traces], 1),
        np.concatenate([trace.norms for trace in traces], 2),
    )


def _text_tokens(cond: Conditioning) -> int:
    if cond.encoded is not None:
        return cond.encoded.tokens.shape[1]
    return 0 if cond.text is None else cond.text.shape[1]
