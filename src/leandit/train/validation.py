"""The loss on pictures that training never shows."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from leandit.data import Batch, Loader, Source, build_source
from leandit.diffusion import Noised, Objective
from leandit.models import Backbone, Conditioning
from leandit.random import Stream, normal, uniform
from leandit.train.callbacks import Callback, StepReport
from leandit.train.conditioner import Conditioner, check_texts, wanted
from leandit.train.config import RunConfig
from leandit.train.trainer import Trainer

# Of the draw of times within Stream.VALIDATION, whose step 0 is the noise.
TIME_STEP = 1


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
        noised, cond = draw_held_out(config, trainer.objective, trainer.conditioner, loader.batch(step))
        losses.append(loss_per_picture(trainer.model, trainer.objective, noised, cond).mean())
        trainer.stop.check()
    return float(torch.stack(losses).mean())


def draw_held_out(
    config: RunConfig, objective: Objective, conditioner: Conditioner, batch: Batch
) -> tuple[Noised, Conditioning]:
    """Return held-out pictures under noise, and their conditions, none of them dropped, on the conditioner's device.

    Noise and times, the latter of the training's distribution, are functions of the run's seed and a picture's index.
    Raises LeanDiTError for a picture without the caption that the model reads.
    """
    check_texts(config.text, batch)
    x0 = batch.images.to(conditioner.device)
    eps = torch.from_numpy(normal(config.seed, Stream.VALIDATION, batch.indices, tuple(x0.shape[1:])))
    u = torch.from_numpy(uniform(config.seed, Stream.VALIDATION, batch.indices, step=TIME_STEP))
    asked = wanted(config.model, batch.texts, batch.labels, np.zeros(len(batch.indices), dtype=bool))
    return objective.draw(x0, u.to(x0.device), eps.to(x0.device)), conditioner(asked)


def loss_per_picture(
    model: Backbone, objective: Objective, noised: Noised, cond: Conditioning
) -> Float[Tensor, " batch"]:
    """Return the objective's loss of each picture, the sum of its parts, without auxiliary losses."""
    parts = objective.loss(model(noised.x_t, noised.t, cond).prediction.float(), noised)
    return torch.stack(list(parts.values())).sum(0)
