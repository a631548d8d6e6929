"""Solvers of the probability-flow ODE dx/dt = v(x, t) and of the reverse SDE: Euler and Heun, for any path."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from leandit.diffusion.path import Path
from leandit.diffusion.samplers.base import Sampler, Step, StepsConfig, continuous_times


class EulerConfig(StepsConfig):
    """First order, one evaluation per step."""

    type: Literal["euler"] = "euler"


class HeunConfig(StepsConfig):
    """Second order, two evaluations per step, one in the last step."""

    type: Literal["heun"] = "heun"


class Euler(Sampler):
    """x_s = x_t + (s - t) v(x_t, t)."""

    def __init__(self, config: EulerConfig) -> None:
        super().__init__(continuous_times(config))

    def advance(self, x: Float[Tensor, "batch channels *rest"], step: Step) -> Tensor:
        return x + (step.s - step.t) * step.denoise(x, step.t).velocity


class Heun(Sampler):
    """The explicit trapezoidal rule: an Euler step, then a step with the mean of the velocities at both ends.

    The last step is an Euler step, because a network is not trained at t = 0 and its velocity may be undefined there.
    The method stays second order, because only one step is first order.

    Reference: Karras et al., "Elucidating the Design Space" (2206.00364), algorithm 1.
    """

    def __init__(self, config: HeunConfig) -> None:
        super().__init__(continuous_times(config))

    def advance(self, x: Float[Tensor, "batch channels *rest"], step: Step) -> Tensor:
        width = step.s - step.t
        start = step.denoise(x, step.t).velocity
        guess = x + width * start
        if step.s <= 0:
            return guess
        return x + width * (start + step.denoise(guess, step.s).velocity) / 2


class HeunSDEConfig(StepsConfig):
    """Second order in the drift, two evaluations per step, one in the last step.

    The DiT-Air paper gives the solver, 50 steps and guidance 7.5, but not the diffusion coefficient. `churn` is our
    choice.
    """

    type: Literal["heun_sde"] = "heun_sde"
    churn: float = Field(default=1.0, ge=0, le=10)
    """Rate at which new noise replaces old noise: w(t) = churn σ(t). 0 is Heun's method on the ODE."""


class HeunSDE(Sampler):
    """dx = (v + w/2 ε / σ) dt + sqrt(w) dB backwards in time, with w = churn σ. The marginals are those of the ODE.

    A step from t to s adds noise of variance w(t) (t - s), then makes Heun's step along the drift v + churn/2 ε. The
    velocity determines ε. The last step is an Euler step on the ODE, without noise.

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
