"""Rectified flow: predict the velocity ε - x0 on the straight path."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from leandit.config import Config
from leandit.diffusion.denoiser import Denoised
from leandit.diffusion.objectives.base import Noised, Objective, mean_square
from leandit.diffusion.path import LinearPath, at_least_float32, per_sample
from leandit.diffusion.timesteps import LogitNormalTimesteps, TimestepConfig


class RectifiedFlowConfig(Config):
    """Straight path x_t = (1 - t) x0 + t ε, loss on the velocity."""

    type: Literal["rectified_flow"] = "rectified_flow"
    prediction: Literal["velocity", "x0"] = "velocity"
    """What the network predicts. The loss is on the velocity in both cases."""
    t_min: float = Field(default=0.05, gt=0, lt=1)
    """Used if the network predicts x0: the velocity is (x_t - x0) / max(t, t_min)."""
    timesteps: TimestepConfig = LogitNormalTimesteps()
    """Distribution of the training times."""


class RectifiedFlow(Objective):
    """E |v - (ε - x0)|². v is the prediction, or (x_t - x̂0) / max(t, t_min) if the network predicts x0.

    For x0 prediction the target has the same divisor: (x_t - x0) / max(t, t_min). It equals ε - x0 for t >= t_min, and
    a perfect x̂0 has loss 0 at every t.

    Reference: Liu et al. (2209.03003), eq. 1. For x0 prediction: Li & He, "Back to Basics: Let Denoising
    Generative Models Denoise" (2511.13720), section 4.3; their time runs in the opposite direction.
    """

    def __init__(self, config: RectifiedFlowConfig) -> None:
        self.config = config
        self.path = LinearPath()

    def out_channels(self, channels: int) -> int:
        return channels

    def times(self, u: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return self.config.timesteps.draw(u)

    def loss(
        self, prediction: Float[Tensor, "batch channels *rest"], noised: Noised
    ) -> dict[str, Float[Tensor, " batch"]]:
        return {"mse": self.auxiliary_loss(prediction, noised)}

    def auxiliary_loss(
        self, prediction_mean: Float[Tensor, "batch channels *rest"], noised: Noised
    ) -> Float[Tensor, " batch"]:
        velocity = self._velocity(prediction_mean, noised.x_t, noised.t)
        if self.config.prediction == "x0":
            return mean_square(velocity - self._velocity(noised.x0, noised.x_t, noised.t))
        return mean_square(velocity - self.path.velocity(noised.x0, noised.eps, noised.t))

    def denoised(
        self,
        prediction: Float[Tensor, "batch channels *rest"],
        x_t: Float[Tensor, "batch channels *rest"],
        t: Float[Tensor, " batch"],
    ) -> Denoised:
        return Denoised(self._velocity(prediction, x_t, t))

    def _velocity(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        prediction = at_least_float32(prediction)
        if self.config.prediction == "velocity":
            return prediction
        divisor = at_least_float32(t).clamp(min=self.config.t_min)
        return (x_t - prediction) / per_sample(divisor, x_t)
