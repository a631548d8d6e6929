"""From labels and captions to what a backbone is conditioned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from leandit.data import Batch
from leandit.errors import LeanDiTError
from leandit.models import Conditioning
from leandit.text import TextConfig, TextEncoder, check_captions

# Stands for "no caption" in captions, as -1 does in labels: the features of the empty text are the null condition.
NO_CAPTION = ""
NO_LABEL = -1

Wanted = Sequence[int | str] | None


@dataclass(frozen=True)
class Conditioner:
    """Turns what is wanted of each picture, labels or captions, into a condition on the model's device."""

    encoder: TextEncoder | None
    device: torch.device

    def __call__(self, wanted: Wanted, checked: bool = False) -> Conditioning:
        """Return the condition for one label or one caption per picture; None gives an empty condition.

        Captions that are `checked` already are not checked again.
        """
        if wanted is None:
            return Conditioning()
        if self.encoder is None:
            return Conditioning(torch.tensor([int(label) for label in wanted], device=self.device))
        texts = [text for text in wanted if isinstance(text, str)]
        if len(texts) < len(wanted):
            raise LeanDiTError("the model is conditioned on text and was given labels; give it a text for each picture")
        features = self.encoder.encode(texts, checked=checked)
        condition = Conditioning(text=features.tokens, text_mask=features.mask, pooled=features.pooled)
        return condition.map(lambda part: part.to(self.device))

    def null(self, count: int) -> Conditioning:
        """Return the condition that stands for wanting nothing, for so many pictures."""
        return self([NO_LABEL] * count if self.encoder is None else [NO_CAPTION] * count)


def check_texts(text: TextConfig | None, batch: Batch) -> None:
    """Raise LeanDiTError, naming the picture, where a model that reads text is shown one without a usable caption."""
    if text is None:
        return
    if batch.texts is None:
        raise LeanDiTError(
            "the model is conditioned on captions, which these pictures do not all have: " + ", ".join(batch.keys)
        )
    names = [f"{key}: caption" for key in batch.keys]
    check_captions(batch.texts, text.max_caption_chars, allow_empty=False, names=names)
