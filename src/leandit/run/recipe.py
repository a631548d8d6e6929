"""How the weights move: the optimiser and the learning rate over the steps of a run, as configuration."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from leandit.config import Config


class AdamWConfig(Config):
    """AdamW on every parameter; the defaults are those of DiT."""

    type: Literal["adamw"] = "adamw"
    lr: float = Field(1e-4, gt=0, le=10)
    """Learning rate before the schedule's factor; DiT's by default."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay per step of the first moment, the mean of gradients."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay per step of the second moment, the mean of squared gradients."""
    eps: float = Field(1e-8, gt=0)
    """Added to the square root of the second moment, so that no update divides by 0."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay: each step shrinks the weights by learning rate times this. 0 is none."""


class MuonConfig(Config):
    """Muon on the matrices of attention, feed-forwards, experts and routers' hidden layers; AdamW on all else.

    Text encoders that are fine-tuned go to AdamW whole, as what they were trained with before: Muon moves all
    directions of a matrix alike, which suits fresh matrices more than trained ones.
    """

    type: Literal["muon"] = "muon"
    lr: float = Field(1e-2, gt=0, le=10)
    """Learning rate before the schedule's factor, for the matrices."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Decay per step of the mean of gradients."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay: each step shrinks the weights by learning rate times this. 0 is none."""
    iterations: int = Field(5, ge=1)
    """Newton-Schulz iterations that orthogonalise an update."""
    adamw: AdamWConfig = AdamWConfig(lr=2e-3, beta2=0.95)
    """AdamW for everything else: embeddings, modulation, heads, norms, biases and fine-tuned text encoders."""


class AdafactorConfig(Config):
    """Adafactor on every parameter: DiT-Air's optimiser, with its rate as the default.

    torch's Adafactor keeps no first moment; DiT-Air states b1 = 0.9 and b2 = 0.999 for its own.
    """

    type: Literal["adafactor"] = "adafactor"
    lr: float = Field(1e-4, gt=0)
    """Learning rate before the schedule's factor; DiT-Air's by default."""
    beta2_decay: float = Field(-0.8, lt=0)
    """Power of the step at which the second moment's decay approaches 1."""
    clip_threshold: float = Field(1.0, gt=0)
    """Largest root mean square of an update; a larger one is scaled down."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay: each step shrinks the weights by learning rate times this. 0 is none."""


class RMSPropConfig(Config):
    """RMSProp with momentum on every parameter: EC-DiT's optimiser; the paper states neither momentum nor decay."""

    type: Literal["rmsprop"] = "rmsprop"
    lr: float = Field(1e-4, gt=0)
    """Learning rate before the schedule's factor; EC-DiT's by default."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Share of an update that is added to the next one."""
    alpha: float = Field(0.99, ge=0, lt=1)
    """Decay per step of the mean of squared gradients."""
    eps: float = Field(1e-8, gt=0)
    """Added to the square root of the second moment, so that no update divides by 0."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay: each step shrinks the weights by learning rate times this. 0 is none."""


OptimizerConfig = Annotated[AdamWConfig | MuonConfig | AdafactorConfig | RMSPropConfig, Field(discriminator="type")]


class ScheduleConfig(Config):
    """Linear warm-up, a plateau at the optimiser's rate, then a decay to zero over the last part of the run."""

    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly from near 0 to the optimiser's. 0 is no warm-up."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """Form of the decay at the end of the run; constant keeps the optimiser's rate to the end."""
    decay_share: float = Field(1.0, gt=0, le=1)
    """Share of the run that the decay takes, counted from the end."""

    def factor(self, step: int, total_steps: int) -> float:
        """Return the multiple of the optimiser's rate for the step with this index, from 0."""
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.decay == "constant":
            return warmup
        left = min(1.0, (total_steps - step) / (total_steps * self.decay_share))
        return warmup * (left if self.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))
