"""The loss on pictures that training never shows."""

from __future__ import annotations

import math

import torch

from leandit.data import Loader, Source, naming
from leandit.errors import LeanDiTError
from leandit.training.callbacks import Callback, RunView, StepReport
from leandit.training.task import Task


class Validation(Callback):
    """Logs `validation_loss` every `train.validate_every` steps: the task's loss on held-out samples.

    It is the mean over all pictures of `data.validation`, for the raw weights in evaluation mode, in which routers use
    thresholds instead of the race. Noise and times depend on the picture and not on the step, so two values differ only
    because of the weights.
    """

    def __init__(self, source: Source | None) -> None:
        self._source = source

    def on_start(self, run: RunView) -> None:
        wanted = self._source is not None and run.config.train.validate_every
        if wanted and type(run.task).held_out is Task.held_out:
            raise LeanDiTError("train.validate_every: this task has no held-out loss; set it to null")

    def on_step(self, run: RunView, report: StepReport) -> None:
        every = run.config.train.validate_every
        if self._source is not None and every and report.step % every == 0:
            run.write_metrics({"validation_loss": validation_loss(run, self._source)})


@torch.no_grad()
def validation_loss(run: RunView, source: Source) -> float:
    """Return the mean of the objective's loss over all pictures of `source`, with one noise and one time per picture.

    The last batch is filled with pictures from the next round, which get other noise.
    """
    run.task.module.eval()
    config = run.config
    size = config.train.batch_size // config.train.accumulation
    loader = Loader(source, config.data.replace(flip=0.0), size, config.seed)
    losses = []
    for step in range(math.ceil(len(source) / size)):
        with naming("data.validation"):
            losses.append(run.task.held_out(loader.batch(step)).mean())
        run.stop.check()
    return float(torch.stack(losses).mean())
