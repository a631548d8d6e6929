"""From labels and captions to what a backbone is conditioned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from leandit.models import Conditioning
from leandit.text import TextEncoder

# Stands for "no caption" in captions, as -1 does in labels: the features of the empty text are the null condition.
NO_CAPTION = ""
NO_LABEL = -1

Wanted = Sequence[int | str] | None


@dataclass(frozen=True)
class Conditioner:
    """Turns what is wanted of each picture, labels or captions, into a condition on the model's device."""

    encoder: TextEncoder | None
    device: torch.device

    def __call__(self, wanted: Wanted) -> Conditioning:
        """Return the condition for one label or one caption per picture; None gives an empty condition."""
        if wanted is None:
            return Conditioning()
        if self.encoder is None:
            return Conditioning(torch.tensor([int(label) for label in wanted], device=self.device))
        features = self.encoder.encode([str(text) for text in wanted])
        condition = Conditioning(text=features.tokens, text_mask=features.mask, pooled=features.pooled)
        return condition.map(lambda part: part.to(self.device))

    def null(self, count: int) -> Conditioning:
        """Return the condition that stands for wanting nothing, for so many pictures."""
        return self([NO_LABEL] * count if self.encoder is None else [NO_CAPTION] * count)
