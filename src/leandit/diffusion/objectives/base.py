"""The interface of a training objective: noising, losses, and the velocity from a raw prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from leandit.diffusion.denoiser import Denoised
from leandit.diffusion.path import Path, at_least_float32


@dataclass(frozen=True)
class Noised:
    """One training batch on its path: x_t = α(t) x0 + σ(t) ε."""

    x_t: Float[Tensor, "batch channels *rest"]
    t: Float[Tensor, " batch"]
    x0: Float[Tensor, "batch channels *rest"]
    eps: Float[Tensor, "batch channels *rest"]


class Objective(ABC):
    """A path, a distribution of training times, and the network's target. It has no parameters."""

    path: Path

    @abstractmethod
    def out_channels(self, channels: int) -> int:
        """Return the number of output channels of the network for data of `channels` channels."""

    @abstractmethod
    def times(self, u: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return training times for uniforms u in [0, 1)."""

    @abstractmethod
    def loss(
        self, prediction: Float[Tensor, "batch out_channels *rest"], noised: Noised
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Return the named parts of the loss, per sample. Training minimises their sum."""

    @abstractmethod
    def auxiliary_loss(
        self, prediction_mean: Float[Tensor, "batch channels *rest"], noised: Noised
    ) -> Float[Tensor, " batch"]:
        """Return the "mse" part of the loss, per sample, for an auxiliary head that predicts the same target."""

    @abstractmethod
    def denoised(
        self,
        prediction: Float[Tensor, "batch out_channels *rest"],
        x_t: Float[Tensor, "batch channels *rest"],
        t: Float[Tensor, " batch"],
    ) -> Denoised:
        """Return the velocity for the network's raw output, with the variance fraction if it is learned."""

    def mean_part(self, prediction: Float[Tensor, "batch out_channels *rest"]) -> Float[Tensor, "batch channels *rest"]:
        """Return the prediction without the channels of a learned variance."""
        return prediction

    def draw(
        self,
        x0: Float[Tensor, "batch channels *rest"],
        u: Float[Tensor, " batch"],
        eps: Float[Tensor, "batch channels *rest"],
    ) -> Noised:
        """Return the batch noised by ε at the times for the uniforms u, in at least float32."""
        x0, eps = at_least_float32(x0), at_least_float32(eps)
        # Compute times in the precision of u and round afterwards: the inverse normal needs precise tails.
        t = self.times(u).to(x0.dtype)
        return Noised(self.path.mix(x0, eps, t), t, x0, eps)


def mean_square(difference: Float[Tensor, "batch *rest"]) -> Float[Tensor, " batch"]:
    """Return the mean of squares per sample."""
    return difference.square().flatten(1).mean(1)
