"""The interface between samplers and networks, x_t -> velocity, and guidance, which wraps one denoiser in another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from leandit.config import Config
from leandit.diffusion.path import per_sample


@dataclass(frozen=True)
class Denoised:
    """The velocity dx/dt at (x, t) and, with learned sigma, the variance as a fraction between two bounds.

    On a log scale, 0 is the small variance β̃ of the DDPM chain and 1 is the large one, β. Training pulls the fraction
    into [0, 1]. A fraction outside is not clipped: it extrapolates the variance, as in DiT.
    """

    velocity: Float[Tensor, "batch channels *rest"]
    variance: Float[Tensor, "batch channels *rest"] | None = None


@runtime_checkable
class Denoiser(Protocol):
    """(x, t, cond) -> Denoised. t has shape (batch,), 0 is data, 1 is noise. Samplers only pass cond on."""

    def __call__(
        self, x: Float[Tensor, "batch channels *rest"], t: Float[Tensor, " batch"], cond: Any, /
    ) -> Denoised: ...


@runtime_checkable
class Condition(Protocol):
    """A condition for guidance: `stack` joins it with another condition along the batch, self first."""

    def stack(self, other: Any, /) -> Any: ...


class GuidanceConfig(Config):
    """The strength of guidance towards the condition of a sample, and the times at which it acts.

    Reference: Ho & Salimans (2207.12598); Kynkäänniemi et al., "Applying Guidance in a Limited Interval"
    (2404.07724), eq. 5.
    """

    scale: float = Field(default=1.0, ge=0, le=1000)
    """Weight of the conditional prediction: unconditional + scale * (conditional - unconditional). 1 is no guidance, 0
    is unconditional, a value above 1 strengthens the condition.
    """
    interval: tuple[float, float] = (0.0, 1.0)
    """(low, high): the times at which guidance acts, both ends included. 0 is data, 1 is noise."""

    @model_validator(mode="after")
    def _ordered(self) -> GuidanceConfig:
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"interval is (low, high) with 0 <= low <= high <= 1, not ({low}, {high})")
        return self


def guided(denoiser: Denoiser, config: GuidanceConfig, null: Condition) -> Denoiser:
    """Return a denoiser with v = v_null + scale (v_cond - v_null) inside the interval, and v_cond outside.

    Inside the interval the denoiser runs once on the batch stacked twice (conditional half first). Outside it runs once
    on the batch itself. `null` is the unconditional condition, of the same batch size as `cond`. All channels are
    guided; DiT's released code guides only the first three. A learned variance comes from the conditional half.

    Reference: Ho & Salimans, "Classifier-Free Diffusion Guidance" (2207.12598), eq. 6 (scale = 1 + w).
    """

    stacked = once(lambda cond: cond.stack(null))

    def denoise(x: Tensor, t: Tensor, cond: Condition, /) -> Denoised:
        if config.scale == 1.0:
            return denoiser(x, t, cond)
        # A sampler's time is the float32 of the time in the config, so compare in that precision.
        low, high = (torch.tensor(end, dtype=t.dtype) for end in config.interval)
        acts = (t >= low) & (t <= high)
        # bool() waits for the GPU, so it runs only if the interval is smaller than [0, 1].
        if config.interval != (0.0, 1.0) and not bool(acts.any()):
            return denoiser(x, t, cond)
        both = denoiser(torch.cat([x, x]), torch.cat([t, t]), stacked(cond))
        v_cond, v_null = both.velocity.chunk(2)
        mixed = v_null + config.scale * (v_cond - v_null)
        velocity = torch.where(per_sample(acts, x), mixed, v_cond)
        return Denoised(velocity, None if both.variance is None else both.variance.chunk(2)[0])

    return denoise


def once(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a version of the function that reuses its last result while it is called with the same object."""
    last: list[Any] = [None, None]

    def call(argument: Any) -> Any:
        if last[0] is not argument:
            last[:] = argument, function(argument)
        return last[1]

    return call
