"""From labels and captions to the condition of a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from leandit.data import Batch
from leandit.errors import LeanDiTError
from leandit.models import Conditioning
from leandit.text import TextConfig, TextEncoder, check_captions

# The caption and the label that mean "none given". The features of the empty text are the null condition.
NO_CAPTION = ""
NO_LABEL = -1

Wanted = Sequence[int | str] | None


@dataclass(frozen=True)
class Conditioner:
    """Turns the labels or captions of pictures into a condition on the model's device."""

    encoder: TextEncoder | None
    device: torch.device

    def __call__(self, wanted: Wanted, checked: bool = False) -> Conditioning:
        """Return the condition for one label or one caption per picture. None gives an empty condition.

        Raises LeanDiTError for a bad caption, unless the caller has `checked` the captions.
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
        """Return the unconditional condition for `count` pictures."""
        return self([NO_LABEL] * count if self.encoder is None else [NO_CAPTION] * count)


def check_texts(text: TextConfig | None, batch: Batch) -> None:
    """Raise LeanDiTError, which names the picture, if the model reads text and a picture has no valid caption."""
    if text is None:
        return
    if batch.texts is None:
        raise LeanDiTError(
            "the model is conditioned on captions, which these pictures do not all have: " + ", ".join(batch.keys)
        )
    names = [f"{key}: caption" for key in batch.keys]
    check_captions(batch.texts, text.max_caption_chars, allow_empty=False, names=names)
