"""The learning rate over the steps of a run."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from leandit.config import Config


class ScheduleConfig(Config):
    """Linear warm-up, a plateau at the optimiser's rate, then a decay to zero over the last part of the run."""

    warmup_steps: int = Field(0, ge=0)
    decay: Literal["constant", "linear", "cosine"] = "constant"
    # Share of the run that the decay takes, counted from its end.
    decay_share: float = Field(1.0, gt=0, le=1)

    def factor(self, step: int, total_steps: int) -> float:
        """Return the multiple of the optimiser's rate for the step with this index, from 0."""
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.decay == "constant":
            return warmup
        left = min(1.0, (total_steps - step) / (total_steps * self.decay_share))
        return warmup * (left if self.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))
