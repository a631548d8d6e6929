"""The loss on pictures that training never shows."""

from __future__ import annotations

import math

import numpy as np
import torch

from leandit.data import Loader, Source, build_source
from leandit.random import Stream, normal, uniform
from leandit.train.callbacks import Callback, StepReport
from leandit.train.conditioner import check_texts, wanted
from leandit.train.trainer import Trainer


class Validation(Callback):
    """Logs `validation_loss` every `train.validate_every` steps: the objective, without auxiliary losses.

    It is the raw model's in evaluation mode, so with thresholds instead of the race, over all pictures of
    `data.validation`. Noise and times belong to the picture, not to the step: two values differ by the weights alone.
    """

    def __init__(self) -> None:
        self._source: Source | None = None

    def on_start(self, trainer: Trainer) -> None:
        if trainer.config.data.validation is not None and trainer.config.train.validate_every:
            self._source = build_source(trainer.config.data.validation)

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        every = trainer.config.train.validate_every
        if self._source is not None and every and report.step % every == 0:
            trainer.write_metrics({"validation_loss": validation_loss(trainer, self._source)})


@torch.no_grad()
def validation_loss(trainer: Trainer, source: Source) -> float:
    """Return the mean of the objective's loss over all pictures of `source`, one noise and one time for each.

    The last batch is filled up with pictures from the next round, under noise of their own.
    """
    trainer.model.eval()
    config = trainer.config
    size = config.train.batch_size // config.train.accumulation
    loader = Loader(source, config.data.replace(flip=0.0), size, config.seed)
    losses = []
    for step in range(math.ceil(len(source) / size)):
        batch = loader.batch(step)
        check_texts(config.text, batch)
        x0 = batch.images.to(trainer.device)
        eps = torch.from_numpy(normal(config.seed, Stream.VALIDATION, batch.indices, tuple(x0.shape[1:])))
        u = torch.from_numpy(uniform(config.seed, Stream.VALIDATION, batch.indices, step=1))
        noised = trainer.objective.draw(x0, u.to(trainer.device), eps.to(trainer.device))
        cond = trainer.conditioner(wanted(config.model, batch.texts, batch.labels, np.zeros(size, dtype=bool)))
        parts = trainer.objective.loss(trainer.model(noised.x_t, noised.t, cond).prediction.float(), noised)
        losses.append(torch.stack(list(parts.values())).sum(0).mean())
        trainer.stop.check()
    return float(torch.stack(losses).mean())
