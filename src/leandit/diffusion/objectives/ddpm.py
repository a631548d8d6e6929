"""DDPM: predict the noise (or v) on the variance-preserving grid, with fixed or learned variance."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from leandit.config import Config
from leandit.diffusion.denoiser import Denoised
from leandit.diffusion.objectives.base import Noised, Objective, mean_square
from leandit.diffusion.path import Parts, VariancePreservingPath, at_least_float32, per_sample
from leandit.diffusion.posterior import Posterior, chain, interpolate_variance
from leandit.diffusion.timesteps import DiscreteTimesteps


class DDPMConfig(Config):
    """Variance-preserving path on a grid with linear betas. Times are uniform on the grid."""

    type: Literal["ddpm"] = "ddpm"
    num_timesteps: int = Field(default=1000, ge=2, le=1_000_000)
    """Number of points of the time grid in (0, 1]."""
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    """Variance of the first forward step."""
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    """Variance of the last forward step."""
    prediction: Literal["epsilon", "velocity"] = "epsilon"
    """What the network predicts: the noise ("epsilon"), or v = α ε - σ x0 ("velocity", Salimans & Ho)."""
    learned_sigma: bool = True
    """The network also predicts the variance: the second half of its channels interpolates between β̃ and β.
    model.learned_sigma must have the same value.
    """

    @model_validator(mode="after")
    def _rising(self) -> DDPMConfig:
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start {self.beta_start} is above beta_end {self.beta_end}; betas must not decrease")
        return self


class DDPM(Objective):
    """E |ε̂ - ε|² (or the same for v). Learned sigma adds the variational bound, which trains the variance only.

    The bound is KL(q(x_s | x_t, x0) || p(x_s | x_t)) for the drawn step, or the negative log-likelihood of x0 for the
    first step, in bits per element. It sends no gradient to the mean. It is multiplied by num_timesteps / 1000, so its
    expectation is 0.001 L_vlb, where L_vlb is the sum over all steps. With 1000 steps the factor is 1, as in DiT.
    The likelihood of the first step is that of a bin of width 2/255 around x0. The outermost bins are not infinite, as
    they are for 8-bit pixels, because latents can lie outside [-1, 1].

    Reference: Ho et al. (2006.11239), eq. 14; Nichol & Dhariwal (2102.09672), eq. 15 and 16; Salimans & Ho
    (2202.00512), appendix D for v.
    """

    path: VariancePreservingPath

    def __init__(self, config: DDPMConfig) -> None:
        self.config = config
        self.path = VariancePreservingPath(config.num_timesteps, config.beta_start, config.beta_end)
        self._timesteps = DiscreteTimesteps(num_timesteps=config.num_timesteps)
        self._chain = chain(self.path, self.path.grid())
        self._chains: dict[tuple[torch.device, torch.dtype], Posterior] = {}

    def out_channels(self, channels: int) -> int:
        return 2 * channels if self.config.learned_sigma else channels

    def times(self, u: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return self._timesteps.draw(u)

    def mean_part(self, prediction: Float[Tensor, "batch out_channels *rest"]) -> Float[Tensor, "batch channels *rest"]:
        return prediction.chunk(2, dim=1)[0] if self.config.learned_sigma else prediction

    def loss(
        self, prediction: Float[Tensor, "batch out_channels *rest"], noised: Noised
    ) -> dict[str, Float[Tensor, " batch"]]:
        mean = self.mean_part(prediction)
        parts = {"mse": self.auxiliary_loss(mean, noised)}
        if self.config.learned_sigma:
            x0 = self._parts(mean.detach(), noised.x_t, noised.t).x0
            parts["vlb"] = self._bound(x0, self._fraction(prediction), noised) * (self.config.num_timesteps / 1000)
        return parts

    def auxiliary_loss(
        self, prediction_mean: Float[Tensor, "batch channels *rest"], noised: Noised
    ) -> Float[Tensor, " batch"]:
        target = noised.eps
        if self.config.prediction == "velocity":
            alpha, sigma = self._alpha_sigma(noised.t, noised.x_t)
            target = alpha * noised.eps - sigma * noised.x0
        return mean_square(at_least_float32(prediction_mean) - target)

    def denoised(
        self,
        prediction: Float[Tensor, "batch out_channels *rest"],
        x_t: Float[Tensor, "batch channels *rest"],
        t: Float[Tensor, " batch"],
    ) -> Denoised:
        velocity = self._parts(self.mean_part(prediction), x_t, t).velocity
        return Denoised(velocity, self._fraction(prediction) if self.config.learned_sigma else None)

    def _fraction(self, prediction: Tensor) -> Tensor:
        """Return (raw + 1) / 2: the second half of the output is trained towards [-1, 1]."""
        return (at_least_float32(prediction.chunk(2, dim=1)[1]) + 1) / 2

    def _alpha_sigma(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        c = self.path.coefficients(t)
        return per_sample(c.alpha, like), per_sample(c.sigma, like)

    def _parts(self, mean: Tensor, x_t: Tensor, t: Tensor) -> Parts:
        eps = at_least_float32(mean)
        if self.config.prediction == "velocity":
            alpha, sigma = self._alpha_sigma(t, x_t)
            eps = sigma * x_t + alpha * eps
        return self.path.convert("epsilon", eps, x_t, t)

    def _bound(self, x0: Tensor, fraction: Tensor, noised: Noised) -> Tensor:
        index = (noised.t * self.config.num_timesteps).round().long() - 1
        step = self._step(index, noised.x_t)
        log_variance = interpolate_variance(fraction, step.variance, step.forward_variance)
        gap = step.x0_weight * (noised.x0 - x0)
        kl = _kl(gap, torch.log(step.variance), log_variance)
        first = per_sample(index == 0, x0)
        nats = torch.where(first, _bin_nll(gap, log_variance), kl)
        return nats.flatten(1).mean(1) / math.log(2)

    def _step(self, index: Tensor, like: Tensor) -> Posterior:
        key = (like.device, like.dtype)
        if key not in self._chains:
            self._chains[key] = Posterior(*(table.to(*key) for table in self._chain))
        return Posterior(*(per_sample(table[index], like) for table in self._chains[key]))


def _kl(gap: Tensor, log_variance: Tensor, other_log_variance: Tensor) -> Tensor:
    """Return KL(N(gap, exp(log_variance)) || N(0, exp(other_log_variance))) per element, in nats."""
    log_ratio = log_variance - other_log_variance
    return 0.5 * (torch.exp(log_ratio) - log_ratio - 1 + gap.square() * torch.exp(-other_log_variance))


def _bin_nll(gap: Tensor, log_variance: Tensor) -> Tensor:
    """Return -log P(|z - gap| < 1/255) per element for z ~ N(0, exp(log_variance)), in nats."""
    inverse = torch.exp(-log_variance / 2)
    # Evaluate both ends on the lower tail, where the distribution function keeps its relative precision.
    distance = gap.abs()
    upper = torch.special.ndtr((1 / 255 - distance) * inverse)
    lower = torch.special.ndtr((-1 / 255 - distance) * inverse)
    return -torch.log((upper - lower).clamp(min=1e-12))
