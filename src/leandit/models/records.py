"""What goes into a backbone and what comes out of it: records, never tuples whose length depends on a flag."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from leandit.moe import RouterOutput


@dataclass(frozen=True)
class Conditioning:
    """What a picture is asked to show; absent parts are None. A negative label means "no label"."""

    label: Int[Tensor, " batch"] | None = None

    def stack(self, other: Conditioning) -> Conditioning:
        """Return both along the batch, this one first; guidance evaluates them in one pass."""
        if self.label is None or other.label is None:
            return Conditioning()
        return Conditioning(torch.cat([self.label, other.label]))

    def null(self) -> Conditioning:
        """Return the unconditional twin."""
        return Conditioning(None if self.label is None else torch.full_like(self.label, -1))


@dataclass(frozen=True)
class BackboneOutput:
    """A backbone's raw prediction, in the shape of its input or with twice its channels for a learned variance,
    and the routers' outputs, one per MoE layer in order of depth (empty for a dense model)."""

    prediction: Float[Tensor, "batch out_channels height width"]
    routers: tuple[RouterOutput, ...]
