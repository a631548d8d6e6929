"""The configuration of the optimisers and of the learning rate schedule."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from leandit.config import Config


class AdamWConfig(Config):
    """AdamW for all parameters. The defaults are those of DiT."""

    type: Literal["adamw"] = "adamw"
    lr: float = Field(1e-4, gt=0, le=10)
    """Learning rate before the schedule's factor. The default is DiT's."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay per step of the first moment, the mean of gradients."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay per step of the second moment, the mean of squared gradients."""
    eps: float = Field(1e-8, gt=0, le=1)
    """Added to the square root of the second moment, so that no update divides by 0."""
    weight_decay: float = Field(0.0, ge=0, le=1000)
    """Decoupled weight decay: each step shrinks the weights by learning rate times this. 0 is none."""


class MuonConfig(Config):
    """Muon for the matrices of attention, feed-forwards, experts and routers' hidden layers; AdamW for the rest.

    All parameters of a fine-tuned text encoder use AdamW, with which they were trained before. Muon moves all
    directions of a matrix equally, which suits new matrices better than trained ones.
    """

    type: Literal["muon"] = "muon"
    lr: float = Field(1e-2, gt=0, le=10)
    """Learning rate of the matrices before the schedule's factor."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Decay per step of the mean of gradients."""
    weight_decay: float = Field(0.0, ge=0, le=1000)
    """Decoupled weight decay: each step shrinks the weights by learning rate times this. 0 is none."""
    iterations: int = Field(5, ge=1, le=100)
    """Newton-Schulz iterations that orthogonalise an update."""
    adamw: AdamWConfig = AdamWConfig(lr=2e-3, beta2=0.95)
    """AdamW for everything else: embeddings, modulation, heads, norms, biases and fine-tuned text encoders."""


class AdafactorConfig(Config):
    """Adafactor for all parameters: the optimiser of DiT-Air, with its rate and decays as defaults.

    DiT-Air states the rate, b1 and b2. The other defaults are those of axlearn, the library that it was trained with.
    """

    type: Literal["adafactor"] = "adafactor"
    lr: float = Field(1e-4, gt=0, le=10)
    """Learning rate before the schedule's factor. The default is DiT-Air's."""
    beta1: float | None = Field(0.9, ge=0, lt=1)
    """Decay per step of the first moment, the mean of updates. null keeps none, which saves a number per weight. The
    default is DiT-Air's.
    """
    beta2: float | None = Field(0.999, ge=0, lt=1)
    """Decay per step of the second moment, the mean of squared gradients. null is Adafactor's own schedule: the decay
    is 1 - step to the power beta2_power. The default is DiT-Air's.
    """
    beta2_power: float = Field(-0.8, ge=-10, lt=0)
    """Power of the schedule of the second moment's decay, if beta2 is null."""
    clip_threshold: float | None = Field(1.0, gt=0, le=1e6)
    """Largest root mean square of an update before the rate. A larger update is scaled down to it. null does not clip.
    """
    scale_by_parameter: bool = False
    """Multiply the rate by the root mean square of the parameter, as in the paper on Adafactor. Small weights then move
    slowly, and weights that start at 0 move at min_scale of the rate.
    """
    min_scale: float = Field(1e-3, gt=0, le=1)
    """Smallest factor of the rate if scale_by_parameter is set."""
    eps: float = Field(1e-30, gt=0, le=1)
    """Added to squared gradients, so that no update divides by 0."""
    min_factored_size: int | None = Field(1, ge=1, le=10**6)
    """Matrices with at least this many rows and columns keep one second moment per row and per column, and others keep
    one per weight. null factors no matrix. optax factors from 128.
    """
    weight_decay: float = Field(0.0, ge=0, le=1000)
    """Decoupled weight decay: each step shrinks the weights by learning rate times this. 0 is none."""

    @model_validator(mode="before")
    @classmethod
    def _read_older(cls, data: Any) -> Any:
        older = {"type", "lr", "beta2_decay", "clip_threshold", "weight_decay"}
        if not isinstance(data, dict) or data.keys() != older:
            return data
        # torch's Adafactor, which an older run used: it takes squares below the square of float32's epsilon for that.
        current = {**data, "beta1": None, "beta2": None, "scale_by_parameter": True, "eps": 1.4e-14}
        return {"beta2_power": current.pop("beta2_decay"), **current}


class RMSPropConfig(Config):
    """RMSProp with momentum for all parameters: the optimiser of EC-DiT, which states the rate and no other number."""

    type: Literal["rmsprop"] = "rmsprop"
    lr: float = Field(1e-4, gt=0, le=10)
    """Learning rate before the schedule's factor. The default is EC-DiT's."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Decay per step of the mean of updates. 0 is no momentum."""
    damped: bool = True
    """Whether momentum is a mean of updates, so that steps are as large as the rate. If not, it is their sum, and steps
    are 1 / (1 - momentum) times as large, as in torch and TensorFlow.
    """
    decay: float = Field(0.99, ge=0, lt=1)
    """Decay per step of the mean of squared gradients."""
    eps: float = Field(1e-8, gt=0, le=1)
    """Added to the root of the mean of squared gradients, so that no update divides by 0."""
    eps_in_root: bool = False
    """Add eps to the mean of squared gradients instead of its root, as TensorFlow and optax do. Gradients far below the
    root of eps then have small steps.
    """
    weight_decay: float = Field(0.0, ge=0, le=1000)
    """Decoupled weight decay: each step shrinks the weights by learning rate times this. 0 is none."""

    @model_validator(mode="before")
    @classmethod
    def _read_older(cls, data: Any) -> Any:
        older = {"type", "lr", "momentum", "alpha", "eps", "weight_decay"}
        if not isinstance(data, dict) or data.keys() != older:
            return data
        current = {**data, "damped": False}
        return {"decay": current.pop("alpha"), **current}


OptimizerConfig = Annotated[AdamWConfig | MuonConfig | AdafactorConfig | RMSPropConfig, Field(discriminator="type")]


class ScheduleConfig(Config):
    """A linear warm-up, the optimiser's rate, and a decay to zero in the last part of the run."""

    warmup_steps: int = Field(0, ge=0, le=10**12)
    """Steps in which the learning rate rises linearly from near 0 to the optimiser's rate. 0 is no warm-up."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """Form of the decay at the end of the run. constant keeps the optimiser's rate to the end."""
    decay_share: float = Field(1.0, gt=0, le=1)
    """Share of the run in which the rate decays, counted from the end."""

    def factor(self, step: int, total_steps: int) -> float:
        """Return the factor of the optimiser's rate for a step. The first step is 0."""
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.decay == "constant":
            return warmup
        left = min(1.0, (total_steps - step) / (total_steps * self.decay_share))
        return warmup * (left if self.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))
