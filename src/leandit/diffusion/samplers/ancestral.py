"""DDPM's ancestral sampler on the discrete grid, whole or respaced."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from leandit.diffusion.denoiser import Denoised
from leandit.diffusion.path import Path, VariancePreservingPath
from leandit.diffusion.posterior import Posterior, chain, interpolate_variance
from leandit.diffusion.samplers.base import Sampler, Step, StepsConfig, grid_times
from leandit.errors import LeanDiTError


class DDPMSamplerConfig(StepsConfig):
    """Ancestral sampling of the variance-preserving chain; stochastic."""

    type: Literal["ddpm"] = "ddpm"
    steps: int = Field(default=250, ge=1, le=1_000_000)
    """Number of steps from noise to data, evenly spaced points of the training grid."""
    variance: Literal["small", "large", "learned"] = "small"
    """Variance of a step: "small" is β̃, "large" is β, "learned" is what the network predicts between the two."""


class Ancestral(Sampler):
    """x_s = mean of q(x_s | x_t, x̂0) + noise, over evenly spaced grid points; no noise in the last step.

    Reference: Ho et al. (2006.11239), algorithm 2; Nichol & Dhariwal (2102.09672), section 4 for respacing.
    """

    def __init__(self, config: DDPMSamplerConfig, path: Path) -> None:
        if not isinstance(path, VariancePreservingPath):
            raise LeanDiTError(
                "sampler.type: ddpm samples the variance-preserving path of a ddpm objective, and this model "
                "has another.\nUse sampler.type=heun or euler, or ddim with eta=1 for stochastic steps"
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
                "sampler.variance: 'learned' needs a network with learned sigma, and this one has none.\n"
                "Use sampler.variance=small or large"
            )
        small, large = q.variance.to(result.variance), q.forward_variance.to(result.variance)
        return torch.exp(interpolate_variance(result.variance, small, large) / 2)
