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
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class MuonConfig(Config):
    """Muon on the matrices of attention, feed-forwards, experts and routers' hidden layers; AdamW on all else.

    Text encoders that are fine-tuned go to AdamW whole, as what they were trained with before: Muon moves all
    directions of a matrix alike, which suits fresh matrices more than trained ones.
    """

    type: Literal["muon"] = "muon"
    lr: float = Field(1e-2, gt=0, le=10)
    momentum: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    iterations: int = Field(5, ge=1)
    """Newton-Schulz iterations."""
    adamw: AdamWConfig = AdamWConfig(lr=2e-3, beta2=0.95)
    """For embeddings, modulation, heads, norms, biases and fine-tuned text encoders."""


class AdafactorConfig(Config):
    """Adafactor on every parameter: DiT-Air's optimiser, with its rate as the default.

    torch's Adafactor keeps no first moment; DiT-Air states b1 = 0.9 and b2 = 0.999 for its own.
    """

    type: Literal["adafactor"] = "adafactor"
    lr: float = Field(1e-4, gt=0)
    beta2_decay: float = Field(-0.8, lt=0)
    """Power of the step by which the second moment's decay goes to 1."""
    clip_threshold: float = Field(1.0, gt=0)
    """Largest root mean square of an update."""
    weight_decay: float = Field(0.0, ge=0)


class RMSPropConfig(Config):
    """RMSProp with momentum on every parameter: EC-DiT's optimiser; the paper states neither momentum nor decay."""

    type: Literal["rmsprop"] = "rmsprop"
    lr: float = Field(1e-4, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    alpha: float = Field(0.99, ge=0, lt=1)
    """Decay of the mean of squares."""
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)


OptimizerConfig = Annotated[AdamWConfig | MuonConfig | AdafactorConfig | RMSPropConfig, Field(discriminator="type")]


class ScheduleConfig(Config):
    """Linear warm-up, a plateau at the optimiser's rate, then a decay to zero over the last part of the run."""

    warmup_steps: int = Field(0, ge=0)
    decay: Literal["constant", "linear", "cosine"] = "constant"
    decay_share: float = Field(1.0, gt=0, le=1)
    """Share of the run that the decay takes, counted from its end."""

    def factor(self, step: int, total_steps: int) -> float:
        """Return the multiple of the optimiser's rate for the step with this index, from 0."""
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.decay == "constant":
            return warmup
        left = min(1.0, (total_steps - step) / (total_steps * self.decay_share))
        return warmup * (left if self.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))
