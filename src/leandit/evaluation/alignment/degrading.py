"""Pictures made worse in the ways in which generated ones are: shifted, blurred, noisy."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from leandit.config import Config
from leandit.random import Stream, generator


class DegradeConfig(Config):
    """How much worse a picture gets at most; each amount is drawn evenly from zero to these."""

    # Pixels to each side; the border is repeated.
    shift: int = Field(2, ge=0, le=8)
    # Standard deviation of a Gaussian blur, pixels; half of the pictures stay sharp.
    blur: float = Field(1.0, ge=0, le=4)
    # Standard deviation of Gaussian noise on 0..255; half of the pictures stay clean.
    noise: float = Field(25.0, ge=0, le=128)


def degrade(
    pictures: UInt8[Tensor, "samples height width channels"], config: DegradeConfig, seed: int, version: int
) -> UInt8[Tensor, "samples height width channels"]:
    """Return the pictures shifted, blurred and noised; a pure function of (seed, place among them, version)."""
    worse = [_degrade_one(picture, config, _draws(seed, i, version)) for i, picture in enumerate(pictures)]
    return torch.stack(worse)


def _draws(seed: int, index: int, version: int) -> np.random.Generator:
    return generator(seed, Stream.AUGMENT, index, version)


def _degrade_one(picture: Tensor, config: DegradeConfig, draws: np.random.Generator) -> Tensor:
    planes = picture.permute(2, 0, 1).float()
    down, right = draws.integers(-config.shift, config.shift, size=2, endpoint=True)
    blur, noise = (amount * max(0.0, 2 * draws.random() - 1) for amount in (config.blur, config.noise))
    grain = torch.from_numpy(draws.standard_normal(planes.shape, dtype=np.float32))
    planes = _blurred(_shifted(planes, int(down), int(right)), blur) + noise * grain
    return planes.round().clamp(0, 255).byte().permute(1, 2, 0)


def _shifted(
    planes: Float[Tensor, "channels height width"], down: int, right: int
) -> Float[Tensor, "channels height width"]:
    margin = max(abs(down), abs(right))
    padded = F.pad(planes, (margin,) * 4, mode="replicate")
    height, width = planes.shape[1:]
    return padded[:, margin - down : margin - down + height, margin - right : margin - right + width]


def _blurred(planes: Float[Tensor, "channels height width"], sigma: float) -> Float[Tensor, "channels height width"]:
    if sigma < 0.1:
        return planes
    radius = int(3 * sigma) + 1
    weights = torch.exp(-(torch.arange(-radius, radius + 1).float() ** 2) / (2 * sigma**2))
    weights = weights / weights.sum()
    padded = F.pad(planes, (radius,) * 4, mode="replicate")[:, None]
    rows = F.conv2d(padded, weights[None, None, :, None])
    return F.conv2d(rows, weights[None, None, None, :])[:, 0]
