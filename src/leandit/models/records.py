"""What goes into a backbone and what comes out of it: records, never tuples whose length depends on a flag."""

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
    """What a backbone makes of a text before any time enters: see `Backbone.encode_text`.

    `pooled` is the embedded pooled vector, if the backbone reads one; `keys_values` are cross-attention's, by layer.
    """

    tokens: Float[Tensor, "batch padded_tokens width"]
    mask: Bool[Tensor, "batch padded_tokens"] | None
    pooled: Float[Tensor, "batch dim"] | None = None
    keys_values: tuple[tuple[Tensor, Tensor], ...] = ()


@dataclass(frozen=True)
class Conditioning:
    """What a picture is asked to show; absent parts are None.

    A negative label means "no label". `text_mask` is True for tokens and False for padding after them. `pooled` is one
    vector for the whole text. `encoded` is what `Backbone.encode_text` adds; a joined or moved condition loses it.
    """

    label: Int[Tensor, " batch"] | None = None
    text: Float[Tensor, "batch text_tokens text_dim"] | None = None
    text_mask: Bool[Tensor, "batch text_tokens"] | None = None
    pooled: Float[Tensor, "batch pooled_dim"] | None = None
    encoded: EncodedText | None = None

    def stack(self, other: Conditioning) -> Conditioning:
        """Return both along the batch, this one first; guidance evaluates them in one pass. Shorter text is padded."""
        length = max((c.text.shape[1] for c in (self, other) if c.text is not None), default=0)
        return Conditioning(
            _cat(self.label, other.label),
            _cat(_pad(self.text, length, (0, 0)), _pad(other.text, length, (0, 0))),
            _cat(_pad(self._full_mask(), length, ()), _pad(other._full_mask(), length, ())),
            _cat(self.pooled, other.pooled),
        )

    def _full_mask(self) -> Tensor | None:
        """The mask of the text, also where it was left out because all of the text counts."""
        if self.text is None or self.text_mask is not None:
            return self.text_mask
        return torch.ones(self.text.shape[:2], dtype=torch.bool, device=self.text.device)

    def null(self) -> Conditioning:
        """Return the unconditional twin of a labelled condition."""
        return Conditioning(None if self.label is None else torch.full_like(self.label, -1))

    def map(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        """Return a copy with `change` applied to every part that is there, such as a move to another device."""
        parts = (self.label, self.text, self.text_mask, self.pooled)
        label, text, text_mask, pooled = (None if part is None else change(part) for part in parts)
        return Conditioning(label, text, text_mask, pooled)


@dataclass(frozen=True)
class LayerOutput:
    """What a layer returns; `routing` is None without experts, `text` in a backbone whose layers change no text."""

    image: Float[Tensor, "batch tokens dim"]
    routing: RouterOutput | None = None
    text: Float[Tensor, "batch text_tokens dim"] | None = None


@dataclass(frozen=True)
class BackboneOutput:
    """What a backbone returns.

    `prediction` has the shape of the input, or twice its channels for a learned variance; `routers` are the outputs of
    the layers with experts, in order of depth. `visible` are the tokens of each picture that the layers and their
    routers saw, in rising order; None is all of them.
    """

    prediction: Float[Tensor, "batch out_channels height width"]
    routers: tuple[RouterOutput, ...]
    visible: Int[Tensor, "batch kept"] | None = None


# Sharding looks for the tensors in what a module returns; older releases of torch find them in registered records only.
for _record in (RouterOutput, LayerOutput, BackboneOutput):
    register_dataclass(_record)


def _cat(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return None if one is None or other is None else torch.cat([one, other])


def _pad(value: Tensor | None, length: int, before: tuple[int, ...]) -> Tensor | None:
    return None if value is None else F.pad(value, (*before, 0, length - value.shape[1]))
