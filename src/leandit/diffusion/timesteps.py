"""Distributions of training times. Each maps one uniform number per sample to a time."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from leandit.config import Config
from leandit.grid import Grid

Time = TypeVar("Time", float, Tensor)


def shift_time(t: Time, shift: float) -> Time:
    """Return s t / (1 + (s - 1) t), which moves t towards noise for s > 1 and keeps 0 and 1. The inverse has shift 1/s.

    On the linear path this divides the amplitude ratio α/σ by s at every time, so log-SNR drops by 2 log s.

    Reference: Esser et al., "Scaling Rectified Flow Transformers" (2403.03206), eq. 23.
    """
    return shift * t / (1 + (shift - 1) * t)


def size_shift(old: int | tuple[int, int], new: int | tuple[int, int]) -> float:
    """Return the shift s = sqrt(m / n), which keeps log-SNR when pictures grow from n to m values.

    A size is one number for a square, or (height, width). For squares s is the ratio of their sides. The mean over
    s x s values of the larger picture keeps smooth data and divides the standard deviation of the noise by s. So the
    larger picture at shift_time(t, s) is as noisy as the smaller one at t.

    Reference: Esser et al. (2403.03206), eq. 23.
    """
    before, after = Grid.of(old), Grid.of(new)
    # The root of a square is exact.
    return math.sqrt((after.height / before.height) * (after.width / before.width))


class _Shifted(Config):
    """The field that all distributions of times have."""

    shift: float = Field(default=1.0, gt=0, le=1000)
    """Moves the training times: a value above 1 towards noise, as larger pictures need, below 1 towards data. 1 changes
    nothing.
    """


class LogitNormalTimesteps(_Shifted):
    """t = sigmoid(loc + scale z) with z standard normal: most training times are in the middle.

    Reference: Esser et al. (2403.03206), section 3.1, eq. 19.
    """

    type: Literal["logit_normal"] = "logit_normal"
    loc: float = Field(default=0.0, ge=-20, le=20)
    """Mean of logit(t). A value above 0 trains more at noisy times."""
    scale: float = Field(default=1.0, gt=0, le=20)
    """Standard deviation of logit(t)."""

    def draw(self, u: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return times for uniforms u in [0, 1)."""
        return shift_time(torch.sigmoid(self.loc + self.scale * torch.special.ndtri(u)), self.shift)


class UniformTimesteps(_Shifted):
    """t uniform on [0, 1)."""

    type: Literal["uniform"] = "uniform"

    def draw(self, u: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return times for uniforms u in [0, 1)."""
        return shift_time(u, self.shift)


class DiscreteTimesteps(_Shifted):
    """t = (i + 1) / N with i uniform on 0..N-1: the grid of DDPM, which does not contain t = 0."""

    type: Literal["discrete"] = "discrete"
    num_timesteps: int = Field(default=1000, ge=1, le=1_000_000)
    """N, the number of points of the time grid in (0, 1]."""

    def draw(self, u: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return times for uniforms u in [0, 1)."""
        index = torch.floor(u * self.num_timesteps).clamp(max=self.num_timesteps - 1)
        return shift_time((index + 1) / self.num_timesteps, self.shift)


TimestepConfig = Annotated[LogitNormalTimesteps | UniformTimesteps | DiscreteTimesteps, Field(discriminator="type")]
