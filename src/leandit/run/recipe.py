"""The configuration of the optimisers and of the learning rate schedule."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

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
    """Adafactor for all parameters: the optimiser of DiT-Air, with its rate as the default.

    DiT-Air states b1 = 0.9 and b2 = 0.999; torch's Adafactor has no first moment.
    """

    type: Literal["adafactor"] = "adafactor"
    lr: float = Field(1e-4, gt=0, le=10)
    """Learning rate before the schedule's factor. The default is DiT-Air's."""
    beta2_decay: float = Field(-0.8, ge=-10, lt=0)
    """The decay of the second moment is 1 - step to this power."""
    clip_threshold: float = Field(1.0, gt=0, le=1e6)
    """Largest root mean square of an update. A larger update is scaled down to it."""
    weight_decay: float = Field(0.0, ge=0, le=1000)
    """Decoupled weight decay: each step shrinks the weights by learning rate times this. 0 is none."""


class RMSPropConfig(Config):
    """RMSProp with momentum for all parameters: the optimiser of EC-DiT, which states neither momentum nor decay."""

    type: Literal["rmsprop"] = "rmsprop"
    lr: float = Field(1e-4, gt=0, le=10)
    """Learning rate before the schedule's factor. The default is EC-DiT's."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Share of an update that is added to the next one."""
    alpha: float = Field(0.99, ge=0, lt=1)
    """Decay per step of the mean of squared gradients."""
    eps: float = Field(1e-8, gt=0, le=1)
    """Added to the square root of the second moment, so that no update divides by 0."""
    weight_decay: float = Field(0.0, ge=0, le=1000)
    """Decoupled weight decay: each step shrinks the weights by learning rate times this. 0 is none."""


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
