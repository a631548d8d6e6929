"""The loss on pictures that training never shows."""

from __future__ import annotations

import math

import torch

from leandit.data import Loader, Source, build_source
from leandit.training.callbacks import Callback, RunView, StepReport


class Validation(Callback):
    """Logs `validation_loss` every `train.validate_every` steps: the task's loss on held-out samples.

    It is the raw model's in evaluation mode, so with thresholds instead of the race, over all pictures of
    `data.validation`. Noise and times belong to the picture, not to the step: two values differ by the weights alone.
    """

    def __init__(self) -> None:
        self._source: Source | None = None

    def on_start(self, run: RunView) -> None:
        if run.config.data.validation is not None and run.config.train.validate_every:
            self._source = build_source(run.config.data.validation)

    def on_step(self, run: RunView, report: StepReport) -> None:
        every = run.config.train.validate_every
        if self._source is not None and every and report.step % every == 0:
            run.write_metrics({"validation_loss": validation_loss(run, self._source)})


@torch.no_grad()
def validation_loss(run: RunView, source: Source) -> float:
    """Return the mean of the objective's loss over all pictures of `source`, one noise and one time for each.

    The last batch is filled up with pictures from the next round, under noise of their own.
    """
    run.task.module.eval()
    config = run.config
    size = config.train.batch_size // config.train.accumulation
    loader = Loader(source, config.data.replace(flip=0.0), size, config.seed)
    losses = []
    for step in range(math.ceil(len(source) / size)):
        losses.append(run.task.held_out(loader.batch(step)).mean())
        run.stop.check()
    return float(torch.stack(losses).mean())
