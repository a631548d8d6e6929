"""What may watch a training run: called by the trainer, never changing what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leandit.errors import LeanDiTError

if TYPE_CHECKING:
    from leandit.train.trainer import Trainer


@dataclass(frozen=True)
class StepReport:
    """What a step did. `step` counts finished steps, from 1; `mfu` is the model FLOPs utilisation, 1 being all."""

    step: int
    loss: float
    images_per_second: float
    mfu: float


class Callback:
    """Base of all callbacks; every hook does nothing until overridden."""

    def on_start(self, trainer: Trainer) -> None:
        """Called once, after a resume and before the first step."""

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        """Called after every step."""

    def on_metrics(self, trainer: Trainer, step: int, values: Mapping[str, Any]) -> None:
        """Called with every line that goes into metrics.jsonl."""

    def on_warning(self, trainer: Trainer, message: str) -> None:
        """Called with what a person should know, such as a collapsed expert."""

    def on_finish(self, trainer: Trainer) -> None:
        """Called once the last step is done and its checkpoint published."""

    def on_end(self, trainer: Trainer) -> None:
        """Called when training stops for any reason, also for an error: to close what was opened."""


class TensorBoardMirror(Callback):
    """Mirrors the numbers of metrics.jsonl, which stays the truth, to TensorBoard files."""

    def __init__(self) -> None:
        self._writer: Any = None

    def on_start(self, trainer: Trainer) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise LeanDiTError(
                "train.tensorboard = true needs TensorBoard, which is not installed: "
                "pip install 'leandit[tensorboard]', or leave it false and read metrics.jsonl"
            ) from None

        self._writer = SummaryWriter(str(trainer.folder.tensorboard), purge_step=trainer.step + 1)

    def on_metrics(self, trainer: Trainer, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)

    def on_end(self, trainer: Trainer) -> None:
        if self._writer is not None:
            self._writer.close()
