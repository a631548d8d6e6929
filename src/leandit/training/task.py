"""The interface of a task. The Trainer contains the loop; a task contains the model and the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leandit.data import Batch, Source
from leandit.run.config import RunConfig
from leandit.text import TextEncoder


@dataclass(frozen=True)
class TaskContext:
    """The inputs from which a task is built."""

    config: RunConfig
    """The resolved configuration."""
    source: Source
    text: TextEncoder | None
    device: torch.device


@dataclass(frozen=True)
class Step:
    """The result of a task for a micro-batch. All tensors stay on the device."""

    loss: Float[Tensor, ""]
    """The loss that training minimises."""
    per_sample: Float[Tensor, " batch"]
    """The loss of each sample, to find samples whose loss is not finite."""
    parts: Mapping[str, Float[Tensor, ""]]
    """The terms of the loss by name, unweighted, for the log."""
    stats: Any = None
    """Data for `Task.after_step`, such as statistics of routers."""
    flops: float = 0.0
    """FLOPs of the forward pass, for the log; 0 if unknown."""


class Task:
    """A task has a `module`, and computes its loss in `forward`. All other methods have defaults.

    No method may read a number from the device. The Trainer reads the tensors from `numbers` once per step, together
    with losses and norms.
    """

    module: nn.Module

    def forward(self, batch: Batch, part: slice) -> Step:
        """Return the loss of a micro-batch: the samples `part` of the batch. Its tensors are on the device."""
        raise NotImplementedError

    def draw(self, batch: Batch) -> Batch:
        """Return the batch with its random draws: noise, times, dropped labels. Runs in the loader's workers.

        It must depend on the seed and `batch.indices` only, so that a resumed run draws the same.
        """
        return batch

    def numbers(self, steps: Sequence[Step]) -> Mapping[str, Tensor]:
        """Return the numbers of a step for `watch` and `report`, as tensors on the device."""
        return {}

    def after_step(self, steps: Sequence[Step]) -> None:
        """Update state once per optimiser step, such as thresholds of routers."""

    def watch(self, numbers: Mapping[str, np.ndarray]) -> list[str]:
        """Return warnings for the user after a step, for example about experts that get no tokens."""
        return []

    def report(self, numbers: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """Return values for a line of metrics.jsonl, in addition to the losses."""
        return {}

    def held_out(self, batch: Batch) -> Float[Tensor, " batch"]:
        """Return the loss per held-out sample. Random draws must depend on the sample and not on the step."""
        raise NotImplementedError

    @property
    def identity(self) -> Mapping[str, Any]:
        """Values as JSON that a checkpoint stores. A resumed run must have the same values."""
        return {}

    def state(self) -> Mapping[str, Any]:
        """Return state that is neither weight nor buffer, as JSON. A checkpoint stores it."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
