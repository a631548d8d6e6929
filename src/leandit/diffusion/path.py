"""Paths from data (t = 0) to noise (t = 1): x_t = α(t) x0 + σ(t) ε, velocity v = α'(t) x0 + σ'(t) ε."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Quantity = Literal["x0", "epsilon", "velocity"]

# Smallest divisor, so that results stay finite at t = 0 and 1. Below it, float32 cannot separate x0 or ε from x_t.
_DIVISOR_FLOOR = 1e-4
# σ of the variance-preserving path starts like a square root, so σ' is infinite at 0. This floor of σ limits σ'.
_SLOPE_FLOOR = 1e-3
# A time within this distance of a grid point, as a fraction of the spacing, is that grid point up to rounding.
_KNOT_TOLERANCE = 1e-3


class Coefficients(NamedTuple):
    """α, σ and their time derivatives at given times, each with the shape of the times."""

    alpha: Tensor
    sigma: Tensor
    alpha_slope: Tensor
    sigma_slope: Tensor


class Parts(NamedTuple):
    """Three equivalent descriptions of one noisy point x_t; each has the shape of x_t."""

    x0: Tensor
    eps: Tensor
    velocity: Tensor


class Path(ABC):
    """x_t = α(t) x0 + σ(t) ε. Times have shape (batch,), one per sample.

    Results have at least float32 precision, also for inputs of lower precision.
    """

    @abstractmethod
    def coefficients(self, t: Float[Tensor, "*times"]) -> Coefficients:
        """Return α, σ, α', σ' at times t in [0, 1], in the precision of t, at least float32."""

    def mix(
        self, x0: Float[Tensor, "batch *rest"], eps: Float[Tensor, "batch *rest"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch *rest"]:
        """Return x_t = α x0 + σ ε."""
        c = self._broadcast(t, x0)
        return c.alpha * x0 + c.sigma * eps

    def velocity(
        self, x0: Float[Tensor, "batch *rest"], eps: Float[Tensor, "batch *rest"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch *rest"]:
        """Return v = dx/dt = α' x0 + σ' ε."""
        c = self._broadcast(t, x0)
        return c.alpha_slope * x0 + c.sigma_slope * eps

    def convert(
        self,
        kind: Quantity,
        value: Float[Tensor, "batch *rest"],
        x_t: Float[Tensor, "batch *rest"],
        t: Float[Tensor, " batch"],
    ) -> Parts:
        """Return x0, ε and the velocity, given x_t and one of the three; `kind` says which one `value` is.

        For a velocity it solves [α σ; α' σ'] (x0, ε) = (x_t, v), which is well posed for all t. For x0 it divides by
        σ, for ε by α. If the divisor is below 1e-4, the result is finite but not exact, because x_t then contains
        almost no information about the unknown.
        """
        c = self._broadcast(t, x_t)
        if kind == "velocity":
            determinant = c.alpha * c.sigma_slope - c.sigma * c.alpha_slope
            x0 = (c.sigma_slope * x_t - c.sigma * value) / determinant
            eps = (c.alpha * value - c.alpha_slope * x_t) / determinant
            return Parts(x0, eps, value)
        if kind == "x0":
            x0, eps = value, (x_t - c.alpha * value) / c.sigma.clamp(min=_DIVISOR_FLOOR)
        else:
            x0, eps = (x_t - c.sigma * value) / c.alpha.clamp(min=_DIVISOR_FLOOR), value
        return Parts(x0, eps, c.alpha_slope * x0 + c.sigma_slope * eps)

    def _broadcast(self, t: Tensor, like: Tensor) -> Coefficients:
        return Coefficients(*(per_sample(c, like) for c in self.coefficients(t)))


class LinearPath(Path):
    """Rectified flow: α = 1 - t, σ = t, v = ε - x0.

    Reference: Liu et al., "Flow Straight and Fast" (2209.03003), eq. 1; Esser et al. (2403.03206), eq. 13.
    """

    def coefficients(self, t: Float[Tensor, "*times"]) -> Coefficients:
        t = at_least_float32(t)
        one = torch.ones_like(t)
        return Coefficients(1 - t, t, -one, one)


class VariancePreservingPath(Path):
    """DDPM with linear betas: α² = ᾱ(t), σ² = 1 - ᾱ(t), extended from the grid to all t in [0, 1].

    Discrete step i = 0..N-1 is t = (i + 1) / N, with ᾱ = Π_{j<=i} (1 - β_j). ᾱ(0) = 1, and log ᾱ is linear between
    grid points. At a grid point the slope jumps, and the derivative is the mean of both sides. The true σ' is infinite
    at t = 0; here it is finite.

    Reference: Ho et al., "Denoising Diffusion Probabilistic Models" (2006.11239), eq. 4 and section 4.
    """

    def __init__(self, num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> None:
        self.num_timesteps = num_timesteps
        steps = np.log1p(-np.linspace(beta_start, beta_end, num_timesteps, dtype=np.float64))
        self._log_steps = torch.from_numpy(steps)
        self._log_alphabar = torch.from_numpy(np.concatenate([[0.0], np.cumsum(steps)]))
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def grid(self) -> Float[Tensor, " num_timesteps"]:
        """Return the times (i + 1) / N of the discrete steps, float64, ascending."""
        return torch.arange(1, self.num_timesteps + 1, dtype=torch.float64) / self.num_timesteps

    def coefficients(self, t: Float[Tensor, "*times"]) -> Coefficients:
        t = at_least_float32(t)
        log_alphabar, log_steps = self._tables_like(t)
        position = t.clamp(0, 1) * self.num_timesteps
        cell = position.floor().long().clamp(max=self.num_timesteps - 1)
        log_value = log_alphabar[cell] + (position - cell) * log_steps[cell]
        # d log ᾱ / dt. At a grid point it is the mean of both sides: one side would bias ODE solvers that land there.
        knot = position.round().long()
        before, after = (knot - 1).clamp(min=0), knot.clamp(max=self.num_timesteps - 1)
        at_knot = (position - knot).abs() < _KNOT_TOLERANCE
        per_cell = torch.where(at_knot, (log_steps[before] + log_steps[after]) / 2, log_steps[cell])
        slope = per_cell * self.num_timesteps
        alpha, sigma = torch.exp(log_value / 2), torch.sqrt(-torch.expm1(log_value))
        sigma_slope = -alpha.square() * slope / (2 * sigma.clamp(min=_SLOPE_FLOOR))
        return Coefficients(alpha, sigma, alpha * slope / 2, sigma_slope)

    def _tables_like(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return log ᾱ and its steps on the device and in the dtype of t, converted once."""
        key = (t.device, t.dtype)
        if key not in self._tables:
            self._tables[key] = (self._log_alphabar.to(*key), self._log_steps.to(*key))
        return self._tables[key]


def per_sample(values: Shaped[Tensor, " batch"], like: Float[Tensor, "batch *rest"]) -> Tensor:
    """Reshape one value per sample so that it broadcasts over the axes of `like`."""
    return values.reshape(-1, *(1 for _ in like.shape[1:]))


def at_least_float32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return x in float32 if its precision is lower, else x: times and losses need more than bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
