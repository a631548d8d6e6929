"""The sampling loop, its times, and its noise, which comes from one seed per sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from leandit.config import Config
from leandit.diffusion.denoiser import Denoised, Denoiser
from leandit.diffusion.path import VariancePreservingPath
from leandit.diffusion.timesteps import shift_time
from leandit.errors import LeanDiTError
from leandit.random import Stream, normal

Progress = Callable[[int, int], None]  # (steps done, total steps), after every step
Observe = Callable[[int, Tensor, Tensor], None]  # (step, t of shape (batch,), x), before every step and at the end


class StepsConfig(Config):
    """The fields of every sampler."""

    steps: int = Field(default=50, ge=1, le=1_000_000)
    """Number of steps from noise to data."""
    shift: float = Field(default=1.0, gt=0, le=1000)
    """Moves the sampling times: a value above 1 towards noise, below 1 towards data. 1 changes nothing."""


@dataclass(frozen=True)
class Step:
    """One step from time t to time s < t. `denoise(x, time)` calls the network, `draw()` returns the step's noise."""

    t: float
    s: float
    denoise: Callable[[Tensor, float], Denoised]
    draw: Callable[[], Tensor]

    def noise(self, std: float) -> Tensor | float:
        """Return noise of this standard deviation. For 0 return 0 and draw nothing."""
        return std * self.draw() if std > 0 else 0.0


class Sampler(ABC):
    """Integrates from noise at t = 1 to data at t = 0 along `times`, which descend and end in 0."""

    def __init__(self, times: Sequence[float]) -> None:
        self.times = tuple(times)

    @abstractmethod
    def advance(self, x: Float[Tensor, "batch channels *rest"], step: Step) -> Tensor:
        """Return x at time step.s, given x at step.t."""

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Denoiser,
        noise: Float[Tensor, "batch channels *rest"],
        cond: Any,
        seeds: Sequence[int],
        progress: Progress | None = None,
        observe: Observe | None = None,
    ) -> Float[Tensor, "batch channels *rest"]:
        """Return samples x0 in float32, for initial `noise` and one seed per sample.

        The seed determines all noise of its sample, so a sample does not depend on its batch. `progress(done, total)`
        is called after every step, `observe(step, t, x)` before every step and once at the end with t = 0. Raises
        LeanDiTError unless there is one seed per sample.
        """
        if len(seeds) != len(noise):
            raise LeanDiTError(f"{len(seeds)} seeds for {len(noise)} samples; give one seed per sample")
        x = noise.float()
        steps = list(pairwise(self.times))
        for k, (t, s) in enumerate(steps):
            if observe:
                observe(k, _full(x, t), x)
            draw = partial(_step_noise, seeds, k, x)
            x = self.advance(x, Step(t, s, partial(_denoise, denoiser, cond), draw)).float()
            if progress:
                progress(k + 1, len(steps))
        if observe:
            observe(len(steps), _full(x, self.times[-1]), x)
        return x


def initial_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> Float[Tensor, "batch *shape"]:
    """Return the initial noise of each seed, (len(seeds), *shape), float32 on the CPU."""
    return _stacked(seeds, Stream.SAMPLE, shape, step=0)


def continuous_times(config: StepsConfig) -> list[float]:
    """Return steps + 1 times from 1 to 0, evenly spaced and then shifted."""
    return [shift_time(1 - k / config.steps, config.shift) for k in range(config.steps + 1)]


def grid_times(config: StepsConfig, path: VariancePreservingPath) -> list[float]:
    """Return `steps` evenly spaced points of the path's grid, from 1 down to the first grid point, and then 0.

    Shifted times are rounded to the nearest grid point. Raises LeanDiTError if the grid has too few points.
    """
    size = path.num_timesteps
    if config.steps > size:
        raise LeanDiTError(f"sampler.steps: {config.steps} steps on a grid of {size} timesteps; use {size} or fewer")
    even = (np.rint(np.linspace(size - 1, 0, config.steps)) + 1) / size
    indices = [round(shift_time(float(t), config.shift) * size) for t in even]
    if len({i for i in indices if i > 0}) < config.steps:
        raise LeanDiTError(
            f"sampler.shift: shift {config.shift} with {config.steps} steps moves two steps to the same grid point "
            f"(of {size}); use fewer steps or a shift closer to 1"
        )
    return [*(i / size for i in indices), 0.0]


def _denoise(denoiser: Denoiser, cond: Any, x: Tensor, t: float) -> Denoised:
    result = denoiser(x, _full(x, t), cond)
    variance = None if result.variance is None else result.variance.float()
    return Denoised(result.velocity.float(), variance)


def _full(x: Tensor, t: float) -> Tensor:
    return x.new_full((len(x),), t)


def _step_noise(seeds: Sequence[int], step: int, x: Tensor) -> Tensor:
    return _stacked(seeds, Stream.SAMPLER_STEP, tuple(x.shape[1:]), step).to(x.device)


def _stacked(seeds: Sequence[int], stream: Stream, shape: tuple[int, ...], step: int) -> Tensor:
    draws = [normal(int(seed), stream, [0], shape, step) for seed in seeds]
    return torch.from_numpy(np.concatenate(draws) if draws else np.empty((0, *shape), np.float32))
