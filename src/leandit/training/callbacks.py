"""Callbacks of a training run. The trainer calls them; they never change what it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """The result of a step. `step` is the number of finished steps; `mfu` is the model FLOPs utilisation, at best 1."""

    step: int
    loss: float
    images_per_second: float
    mfu: float


class RunView(Protocol):
    """A callback's view of a run. The Trainer implements it. A callback reads it and never changes the training."""

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
        """Append a line for this step to metrics.jsonl, and pass it to the callbacks."""

    def warn(self, message: str) -> None:
        """Pass a warning for the user to the callbacks."""

    def drawing(self, what: str, done: int, total: int) -> None:
        """Pass on that `done` of `total` steps of drawing `what`, such as "samples", are done."""


class Callback:
    """Base of all callbacks. Every hook does nothing unless it is overridden."""

    def on_data(self, lines: Sequence[str]) -> None:
        """Called first, with a line about each set of pictures: what was read, and what was passed over."""

    def on_start(self, run: RunView) -> None:
        """Called once, after a resume and before the first step."""

    def on_step(self, run: RunView, report: StepReport) -> None:
        """Called after every step."""

    def on_metrics(self, run: RunView, step: int, values: Mapping[str, Any]) -> None:
        """Called with every line of metrics.jsonl."""

    def on_warning(self, run: RunView, message: str) -> None:
        """Called with a warning for the user, for example about a collapsed expert."""

    def on_drawing(self, run: RunView, what: str, done: int, total: int) -> None:
        """Called while pictures are drawn, after every step of the sampler."""

    def on_finish(self, run: RunView) -> None:
        """Called after the last step, when its checkpoint is published."""

    def on_end(self, run: RunView) -> None:
        """Called when training ends for any reason, also after an error. Close files here."""


class TensorBoardMirror(Callback):
    """Copies the numbers of metrics.jsonl to TensorBoard files."""

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
