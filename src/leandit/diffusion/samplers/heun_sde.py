"""Heun's method on the reverse stochastic equation: what DiT-Air samples with."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from leandit.diffusion.path import Path
from leandit.diffusion.samplers.base import Sampler, Step, StepsConfig, continuous_times


class HeunSDEConfig(StepsConfig):
    """Second order in the drift, two evaluations per step and one in the last.

    DiT-Air states the solver, 50 steps and guidance 7.5, but no diffusion coefficient: `churn` is ours.
    """

    type: Literal["heun_sde"] = "heun_sde"
    churn: float = Field(default=1.0, ge=0, le=10)
    """Rate at which noise is exchanged: w(t) = churn σ(t). 0 is Heun's method on the ODE."""


class HeunSDE(Sampler):
    """dx = (v + w/2 ε / σ) dt + sqrt(w) dB backwards in time, with w = churn σ: marginals are those of the ODE.

    A step from t to s first adds noise of variance w(t) (t - s), then takes Heun's step along the drift
    v + churn/2 ε, whose ε comes from the velocity. The last step is Euler's on the ODE, without noise.

    Reference: DiT-Air (2503.10618), section on inference; Ma et al., SiT (2401.08740), eq. 5 and its Heun solver.
    """

    def __init__(self, config: HeunSDEConfig, path: Path) -> None:
        super().__init__(continuous_times(config))
        self.config, self.path = config, path

    def advance(self, x: Float[Tensor, "batch channels *rest"], step: Step) -> Tensor:
        width = step.s - step.t
        if step.s <= 0:
            return x + width * step.denoise(x, step.t).velocity
        sigma = self.path.coefficients(torch.tensor(step.t, dtype=torch.float64)).sigma.item()
        x = x + step.noise(math.sqrt(self.config.churn * sigma * -width))
        start = self._drift(x, step, step.t)
        return x + width * (start + self._drift(x + width * start, step, step.s)) / 2

    def _drift(self, x: Tensor, step: Step, t: float) -> Tensor:
        velocity = step.denoise(x, t).velocity
        parts = self.path.convert("velocity", velocity, x, x.new_full((len(x),), t))
        return velocity + self.config.churn / 2 * parts.eps
