"""Classifier-free guidance as a wrapper that turns a denoiser into a denoiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from leandit.config import Config
from leandit.diffusion.denoiser import Condition, Denoised, Denoiser
from leandit.diffusion.path import per_sample


class GuidanceConfig(Config):
    """How strongly, and at which times, samples are pushed towards their condition.

    Reference: Ho & Salimans (2207.12598); Kynkäänniemi et al., "Applying Guidance in a Limited Interval"
    (2404.07724), eq. 5.
    """

    scale: float = Field(default=1.0, ge=0, le=1000)
    """How far a prediction goes from the unconditional one towards the conditional one, and beyond it. 1 is no
    guidance, 0 is unconditional.
    """
    interval: tuple[float, float] = (
        0.0,
        1.0,
    )
    """(low, high): the times at which guidance acts, both ends included. 0 is data, 1 is noise."""

    @model_validator(mode="after")
    def _ordered(self) -> GuidanceConfig:
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"interval is (low, high) with 0 <= low <= high <= 1, not ({low}, {high})")
        return self


def guided(denoiser: Denoiser, config: GuidanceConfig, null: Condition) -> Denoiser:
    """Return a denoiser with v = v_null + scale (v_cond - v_null) within the interval, v_cond elsewhere.

    All channels are guided: there is no switch for guiding only the first three, a quirk of the DiT release.
    Where guidance acts there is one pass over the batch stacked twice (conditional half first), elsewhere one
    over the batch alone. `null` is the condition of "no condition", for a batch of the same size as the one
    given in the call; conditions implement `.stack(other)`. A learned variance is the conditional one.

    Reference: Ho & Salimans, "Classifier-Free Diffusion Guidance" (2207.12598), eq. 6 (scale = 1 + w).
    """

    stacked = once(lambda cond: cond.stack(null))

    def denoise(x: Tensor, t: Tensor, cond: Condition, /) -> Denoised:
        if config.scale == 1.0:
            return denoiser(x, t, cond)
        acts = _acts(config, t)
        # Only a part of the times has to be looked up, which on a GPU waits for it.
        if config.interval != (0.0, 1.0) and not bool(acts.any()):
            return denoiser(x, t, cond)
        both = denoiser(torch.cat([x, x]), torch.cat([t, t]), stacked(cond))
        v_cond, v_null = both.velocity.chunk(2)
        mixed = v_null + config.scale * (v_cond - v_null)
        velocity = torch.where(per_sample(acts, x), mixed, v_cond)
        return Denoised(velocity, None if both.variance is None else both.variance.chunk(2)[0])

    return denoise


def once(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the function with its last result kept for as long as it is called with the very same object."""
    last: list[Any] = [None, None]

    def call(argument: Any) -> Any:
        if last[0] is not argument:
            last[:] = argument, function(argument)
        return last[1]

    return call


def _acts(config: GuidanceConfig, t: Tensor) -> Tensor:
    low, high = config.interval
    # A sampler's time is float32 of the time that a person writes, so compare in that precision.
    return (t >= torch.tensor(low, dtype=t.dtype)) & (t <= torch.tensor(high, dtype=t.dtype))
