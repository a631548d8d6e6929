"""Solvers of the probability-flow equation dx/dt = v(x, t): Euler and Heun, for any path."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from leandit.diffusion.samplers.base import Sampler, Step, StepsConfig, continuous_times


class EulerConfig(StepsConfig):
    """First order, one evaluation per step."""

    type: Literal["euler"] = "euler"


class HeunConfig(StepsConfig):
    """Second order, two evaluations per step and one in the last."""

    type: Literal["heun"] = "heun"


class Euler(Sampler):
    """x_s = x_t + (s - t) v(x_t, t)."""

    def __init__(self, config: EulerConfig) -> None:
        super().__init__(continuous_times(config))

    def advance(self, x: Float[Tensor, "batch channels *rest"], step: Step) -> Tensor:
        return x + (step.s - step.t) * step.denoise(x, step.t).velocity


class Heun(Sampler):
    """The explicit trapezoid: an Euler step, then one with the mean of the velocities at both of its ends.

    The last step is Euler's: a network is not trained at t = 0, where its velocity may be undefined. One step
    of first order in as many as there are leaves the method at second order.

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
