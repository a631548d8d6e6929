"""What may watch a training run: called by the trainer, never changing what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from leandit.data import Source
from leandit.errors import LeanDiTError
from leandit.run.config import RunConfig
from leandit.run.folder import RunFolder
from leandit.training.signals import StopRequest
from leandit.training.task import Task


@dataclass(frozen=True)
class StepReport:
    """What a step did. `step` counts finished steps, from 1; `mfu` is the model FLOPs utilisation, 1 being all."""

    step: int
    loss: float
    images_per_second: float
    mfu: float


class RunView(Protocol):
    """What a callback sees of a run; the Trainer is one. A callback reads it and never changes what it computes."""

    config: RunConfig
    folder: RunFolder
    source: Source
    task: Task
    stop: StopRequest
    step: int

    @property
    def averaged_weights(self) -> Mapping[str, Tensor]:
        """The moving average of the weights, by name."""

    def write_metrics(self, values: Mapping[str, Any]) -> None:
        """Append a line for this step to metrics.jsonl, and show it to the callbacks."""

    def warn(self, message: str) -> None:
        """Tell the callbacks what a person should know."""


class Callback:
    """Base of all callbacks; every hook does nothing until overridden."""

    def on_start(self, run: RunView) -> None:
        """Called once, after a resume and before the first step."""

    def on_step(self, run: RunView, report: StepReport) -> None:
        """Called after every step."""

    def on_metrics(self, run: RunView, step: int, values: Mapping[str, Any]) -> None:
        """Called with every line that goes into metrics.jsonl."""

    def on_warning(self, run: RunView, message: str) -> None:
        """Called with what a person should know, such as a collapsed expert."""

    def on_finish(self, run: RunView) -> None:
        """Called once the last step is done and its checkpoint published."""

    def on_end(self, run: RunView) -> None:
        """Called when training stops for any reason, also for an error: to close what was opened."""


class TensorBoardMirror(Callback):
    """Mirrors the numbers of metrics.jsonl, which stays the truth, to TensorBoard files."""

    def __init__(self) -> None:
        self._writer: Any = None

    def on_start(self, run: RunView) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise LeanDiTError(
                "train.tensorboard = true needs TensorBoard, which is not installed: "
                "pip install 'leandit[tensorboard]', or leave it false and read metrics.jsonl"
            ) from None

        self._writer = SummaryWriter(str(run.folder.tensorboard), purge_step=run.step + 1)

    def on_metrics(self, run: RunView, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)

    def on_end(self, run: RunView) -> None:
        if self._writer is not None:
            self._writer.close()
