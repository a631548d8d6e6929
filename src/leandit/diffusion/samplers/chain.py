"""Samplers of DDPM's chain: ancestral sampling and DDIM."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from leandit.diffusion.denoiser import Denoised
from leandit.diffusion.path import Path, VariancePreservingPath
from leandit.diffusion.posterior import Posterior, chain, interpolate_variance, posterior
from leandit.diffusion.samplers.base import Sampler, Step, StepsConfig, continuous_times, grid_times
from leandit.errors import LeanDiTError


class DDPMSamplerConfig(StepsConfig):
    """Ancestral sampling of the variance-preserving chain. It is stochastic."""

    type: Literal["ddpm"] = "ddpm"
    steps: int = Field(default=250, ge=1, le=1_000_000)
    """Number of steps from noise to data. They are evenly spaced on the training grid."""
    variance: Literal["small", "large", "learned"] = "small"
    """Variance of a step: "small" is β̃, "large" is β, "learned" is the network's prediction between the two."""


class Ancestral(Sampler):
    """x_s = mean of q(x_s | x_t, x̂0) + noise, on evenly spaced grid points. The last step adds no noise.

    Reference: Ho et al. (2006.11239), algorithm 2; Nichol & Dhariwal (2102.09672), section 4 for respacing.
    """

    def __init__(self, config: DDPMSamplerConfig, path: Path) -> None:
        if not isinstance(path, VariancePreservingPath):
            raise LeanDiTError(
                "sampler.type: ddpm needs the variance-preserving path of a ddpm objective; this model has another "
                "path.\nUse sampler.type=heun or euler, or ddim with eta=1 for stochastic steps"
            )
        super().__init__(grid_times(config, path))
        self.config, self.path = config, path
        self._posteriors = chain(path, torch.tensor(self.times[:-1], dtype=torch.float64).flip(0))
        self._index = {t: i for i, t in enumerate(reversed(self.times[:-1]))}

    def advance(self, x: Float[Tensor, "batch channels *rest"], step: Step) -> Tensor:
        result = step.denoise(x, step.t)
        x0 = self.path.convert("velocity", result.velocity, x, x.new_full((len(x),), step.t)).x0
        q = Posterior(*(row[self._index[step.t]] for row in self._posteriors))
        mean = q.x0_weight.item() * x0 + q.x_weight.item() * x
        if step.s <= 0:
            return mean
        return mean + self._std(q, result) * step.draw()

    def _std(self, q: Posterior, result: Denoised) -> Tensor | float:
        if self.config.variance == "small":
            return math.sqrt(q.variance.item())
        if self.config.variance == "large":
            return math.sqrt(q.forward_variance.item())
        if result.variance is None:
            raise LeanDiTError(
                "sampler.variance: 'learned' needs a network with learned sigma; this one does not have it.\n"
                "Use sampler.variance=small or large"
            )
        small, large = q.variance.to(result.variance), q.forward_variance.to(result.variance)
        return torch.exp(interpolate_variance(result.variance, small, large) / 2)


class DDIMConfig(StepsConfig):
    """Computes x0 and ε from the network's prediction, and the next point of the path from both."""

    type: Literal["ddim"] = "ddim"
    eta: float = Field(default=0.0, ge=0, le=1)
    """How much new noise a step adds: 0 is deterministic, 1 adds as much as ancestral sampling."""


class DDIM(Sampler):
    """x_s = α_s x̂0 + sqrt(σ_s² - η² β̃) ε̂ + η sqrt(β̃) z; β̃ is the variance of q(x_s | x_t, x0).

    On the variance-preserving path it uses evenly spaced grid points, on other paths evenly spaced times. With η = 1
    it is ancestral sampling with the small variance, on any path.

    Reference: Song et al., "Denoising Diffusion Implicit Models" (2010.02502), eq. 12 and 16.
    """

    def __init__(self, config: DDIMConfig, path: Path) -> None:
        grid = path if isinstance(path, VariancePreservingPath) else None
        super().__init__(grid_times(config, grid) if grid else continuous_times(config))
        self.config, self.path = config, path

    def advance(self, x: Float[Tensor, "batch channels *rest"], step: Step) -> Tensor:
        velocity = step.denoise(x, step.t).velocity
        parts = self.path.convert("velocity", velocity, x, x.new_full((len(x),), step.t))
        t, s = (torch.tensor(time, dtype=torch.float64) for time in (step.t, step.s))
        target = self.path.coefficients(s)
        variance = self.config.eta**2 * posterior(self.path, t, s).variance.item()
        towards_eps = math.sqrt(max(target.sigma.item() ** 2 - variance, 0.0))
        return target.alpha.item() * parts.x0 + towards_eps * parts.eps + step.noise(math.sqrt(variance))
