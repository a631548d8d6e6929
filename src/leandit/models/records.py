"""Input and output of a backbone: records, never tuples with a length that depends on a flag."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import register_dataclass

from leandit.moe import RouterOutput


@dataclass(frozen=True)
class EncodedText:
    """The part of a backbone's result that depends only on the text: see `Backbone.encode_text`.

    `pooled` is the embedded pooled vector, if the backbone reads one; `keys_values` are for cross-attention, by layer.
    """

    tokens: Float[Tensor, "batch padded_tokens width"]
    mask: Bool[Tensor, "batch padded_tokens"] | None
    pooled: Float[Tensor, "batch dim"] | None = None
    keys_values: tuple[tuple[Tensor, Tensor], ...] = ()


@dataclass(frozen=True)
class Conditioning:
    """The condition of a picture. Absent parts are None.

    A negative label means "no label". `text_mask` is True for tokens and False for padding after them. `pooled` is one
    vector for the whole text. `Backbone.encode_text` adds `encoded`; a joined or moved condition loses it.
    """

    label: Int[Tensor, " batch"] | None = None
    text: Float[Tensor, "batch text_tokens text_dim"] | None = None
    text_mask: Bool[Tensor, "batch text_tokens"] | None = None
    pooled: Float[Tensor, "batch pooled_dim"] | None = None
    encoded: EncodedText | None = None

    def stack(self, other: Conditioning) -> Conditioning:
        """Join both along the batch, this one first, for guidance in one pass. Shorter text is padded."""
        length = max((c.text.shape[1] for c in (self, other) if c.text is not None), default=0)
        return Conditioning(
            _cat(self.label, other.label),
            _cat(_pad(self.text, length, (0, 0)), _pad(other.text, length, (0, 0))),
            _cat(_pad(self._full_mask(), length, ()), _pad(other._full_mask(), length, ())),
            _cat(self.pooled, other.pooled),
        )

    def _full_mask(self) -> Tensor | None:
        """The mask of the text. If none was given, all tokens count."""
        if self.text is None or self.text_mask is not None:
            return self.text_mask
        return torch.ones(self.text.shape[:2], dtype=torch.bool, device=self.text.device)

    def null(self) -> Conditioning:
        """Return the unconditional counterpart of a labelled condition."""
        return Conditioning(None if self.label is None else torch.full_like(self.label, -1))

    def map(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        """Return a copy with `change` applied to every part, such as a move to another device."""
        parts = (self.label, self.text, self.text_mask, self.pooled)
        label, text, text_mask, pooled = (None if part is None else change(part) for part in parts)
        return Conditioning(label, text, text_mask, pooled)


@dataclass(frozen=True)
class LayerOutput:
    """A layer's result. `routing` is None without experts; `text` is None if the layers do not change text."""

    image: Float[Tensor, "batch tokens dim"]
    routing: RouterOutput | None = None
    text: Float[Tensor, "batch text_tokens dim"] | None = None


@dataclass(frozen=True)
class BackboneOutput:
    """A backbone's result.

    `prediction` has the shape of the input, or twice its channels for a learned variance. `routers` are the routers'
    outputs in order of depth, one per layer with experts. `visible` are the tokens of each picture that the layers and
    their routers got, in ascending order; None means all.
    """

    prediction: Float[Tensor, "batch out_channels height width"]
    routers: tuple[RouterOutput, ...]
    visible: Int[Tensor, "batch kept"] | None = None


# Sharding needs the tensors in a module's result; older releases of torch find them only in registered records.
for _record in (RouterOutput, LayerOutput, BackboneOutput):
    register_dataclass(_record)


def _cat(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return None if one is None or other is None else torch.cat([one, other])


def _pad(value: Tensor | None, length: int, before: tuple[int, ...]) -> Tensor | None:
    return None if value is None else F.pad(value, (*before, 0, length - value.shape[1]))
