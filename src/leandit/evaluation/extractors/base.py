"""The interface of every extractor: features of pictures, and what they depend on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

# Mean and standard deviation of the pixels, 0..1, that CLIP was trained on.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RESAMPLING = "bicubic, antialiased"


@dataclass(frozen=True)
class Outputs:
    """The outputs of an extractor for a batch of pictures, float32."""

    features: Float[Tensor, "samples dim"]
    spatial: Float[Tensor, "samples spatial_dim"] | None = None
    """The flattened first channels of a map in the middle of the network, which keeps positions; for sFID."""
    logits: Float[Tensor, "samples classes"] | None = None
    """Logits of a classifier, for the Inception score."""


class Extractor(ABC):
    """A frozen network in evaluation mode: a picture's features do not depend on its neighbours."""

    name: ClassVar[str]
    """Its part of the names of numbers, such as "FD-EffNetLite0"."""

    @abstractmethod
    def outputs(self, pictures: UInt8[Tensor, "samples height width channels"]) -> Outputs:
        """Return the outputs for pictures, 0..255, of any size; one channel is repeated to three."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Return what a feature depends on, as JSON: name, SHA-256 of the weights, resolution and resampling."""

    def __call__(
        self, pictures: UInt8[Tensor, "samples height width channels"], batch_size: int = 64
    ) -> Float[Tensor, "samples dim"]:
        """Return the features of any number of pictures."""
        batches = [self.outputs(batch).features for batch in pictures.split(batch_size)]
        return torch.cat(batches)


def to_planes(
    pictures: UInt8[Tensor, "samples height width channels"], device: torch.device | str = "cpu"
) -> Float[Tensor, "samples 3 height width"]:
    """Return RGB planes, 0..255, as float32; one channel is repeated to three."""
    planes = pictures.to(device).permute(0, 3, 1, 2).float()
    return planes.expand(-1, 3, -1, -1) if planes.shape[1] == 1 else planes


def resize(x: Float[Tensor, "samples 3 height width"], side: int) -> Float[Tensor, "samples 3 side side"]:
    """Return planes, 0..255, as squares of `side` pixels: bicubic, antialiased; those of that size as they are."""
    if tuple(x.shape[2:]) == (side, side):
        return x
    return F.interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(0, 255)


def clip_planes(
    pictures: UInt8[Tensor, "samples height width channels"], side: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "samples 3 side side"]:
    """Return planes resized and normalised as CLIP and BLIP read them: (x / 255 - CLIP_MEAN) / CLIP_STD."""
    x = resize(to_planes(pictures, device), side)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (x / 255 - mean) / std
