"""What a run learns: the Trainer knows loops, a task knows the model, the loss and what belongs to them."""

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
    """What a task is built from."""

    config: RunConfig
    """The resolved configuration."""
    source: Source
    text: TextEncoder | None
    device: torch.device


@dataclass(frozen=True)
class Step:
    """What a task computes from a micro-batch; all of it stays on the device."""

    loss: Float[Tensor, ""]
    """What is minimised."""
    per_sample: Float[Tensor, " batch"]
    """The loss of each sample, to name those for which it is not finite."""
    parts: Mapping[str, Float[Tensor, ""]]
    """The terms of the loss by name, unweighted, for the log."""
    stats: Any = None
    """What `Task.after_step` needs, such as statistics of routers."""
    flops: float = 0.0
    """FLOPs of the forward pass, for the log; 0 if unknown."""


class Task:
    """What is learned: `module`, and its loss in `forward`. The rest has defaults.

    No method reads a number from the device. The Trainer reads those that `numbers` names together with losses and
    norms, once in each step.
    """

    module: nn.Module

    def forward(self, batch: Batch, part: slice) -> Step:
        """Return the loss of a micro-batch, the samples `part` of a batch whose tensors are on the device."""
        raise NotImplementedError

    def draw(self, batch: Batch) -> Batch:
        """Return the batch with what is drawn for it: noise, times, what is dropped. Runs in the loader's workers.

        It is a function of the seed and of `batch.indices` alone, so that a resumed run draws the same.
        """
        return batch

    def numbers(self, steps: Sequence[Step]) -> Mapping[str, Tensor]:
        """Return what `report` wants to know of the micro-batches of a step, as tensors on the device."""
        return {}

    def after_step(self, steps: Sequence[Step]) -> None:
        """Move what moves once per optimiser step, such as thresholds of routers."""

    def watch(self, numbers: Mapping[str, np.ndarray]) -> list[str]:
        """Return what a person should know after a step, such as experts that get no tokens."""
        return []

    def report(self, numbers: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """Return what goes into a line of metrics.jsonl beside the losses."""
        return {}

    def held_out(self, batch: Batch) -> Float[Tensor, " batch"]:
        """Return the loss of samples that training never shows; their draws belong to the sample, not to the step."""
        raise NotImplementedError

    @property
    def identity(self) -> Mapping[str, Any]:
        """What a checkpoint keeps and a resumed run must have as well, as JSON."""
        return {}

    def state(self) -> Mapping[str, Any]:
        """Return what is neither weight nor buffer, as JSON; a checkpoint keeps it."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint."""
