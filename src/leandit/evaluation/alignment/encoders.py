"""The two frozen encoders below the heads: EfficientNet-Lite0 for pictures, MiniLM for captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from leandit.evaluation.extractors import EffNetLite0
from leandit.evaluation.extractors.base import resize
from leandit.text import TextConfig, build_text_encoder

# Of the bundled emoji: pictures of any other size are brought to it first, since the heads know no other.
PICTURE_SIZE = 32
RESOLUTION = 96
# A CPU's cache holds the maps of so many pictures, not of many more.
_BATCH = 8


class FrozenEncoders:
    """Features of pictures and captions; a LeanDiTError with pip's command where weights are not installed."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._pictures = EffNetLite0(RESOLUTION, device)
        self._texts = build_text_encoder(TextConfig(batch_size=64), device)

    def pictures(self, pictures: UInt8[Tensor, "samples height width channels"]) -> Float[Tensor, "samples 1280"]:
        """Return the pooled features of pictures, after a resize to 32 x 32 where they are of another size."""
        # A clone can take part in a backward pass; what inference mode made cannot.
        return torch.cat([self._pictures(at_32(part), _BATCH) for part in pictures.split(1024)]).clone()

    def texts(self, captions: Sequence[str]) -> Float[Tensor, "samples 384"]:
        """Return the mean-pooled features of captions."""
        # Alike in length side by side: less padding.
        order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
        features = self._texts.encode([captions[i] for i in order]).pooled
        return features[torch.tensor(order).argsort()].clone()

    def about(self) -> dict[str, Any]:
        """Return what the features depend on."""
        return {
            "pictures": {**self._pictures.about(), "first_resized_to": PICTURE_SIZE},
            "captions": {"encoder": "all-MiniLM-L6-v2", "pooled": "mean", "fingerprint": self._texts.fingerprint},
        }


def at_32(
    pictures: UInt8[Tensor, "samples height width channels"],
) -> UInt8[Tensor, "samples 32 32 channels"]:
    """Return the pictures at the size of the bundled emoji, bicubic and antialiased."""
    if tuple(pictures.shape[1:3]) == (PICTURE_SIZE, PICTURE_SIZE):
        return pictures
    small = resize(pictures.permute(0, 3, 1, 2).float(), PICTURE_SIZE)
    return small.round().byte().permute(0, 2, 3, 1)
