"""DDIM, deterministic or stochastic, on any path."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from leandit.diffusion.path import Path, VariancePreservingPath
from leandit.diffusion.posterior import posterior
from leandit.diffusion.samplers.base import Sampler, Step, StepsConfig, continuous_times, grid_times


class DDIMConfig(StepsConfig):
    """x0 and ε from the network, and the next point of the path made from them."""

    type: Literal["ddim"] = "ddim"
    eta: float = Field(default=0.0, ge=0, le=1)
    """How much fresh noise a step adds: 0 is deterministic, 1 is as much as ancestral sampling adds."""


class DDIM(Sampler):
    """x_s = α_s x̂0 + sqrt(σ_s² - η² β̃) ε̂ + η sqrt(β̃) z, with β̃ the variance of q(x_s | x_t, x0).

    On the variance-preserving path it takes evenly spaced grid points, on others evenly spaced times.
    With η = 1 it is the ancestral sampler with the small variance, for either path.

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
