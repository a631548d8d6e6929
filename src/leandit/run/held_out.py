"""The model's loss on held-out pictures, which training never shows. Each picture has its own fixed noise and time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from leandit.autoencoder import Codec
from leandit.data import Batch
from leandit.diffusion import Noised, Objective
from leandit.models import Backbone, Conditioning
from leandit.random import Stream, normal, uniform
from leandit.run.conditioner import Conditioner, Wanted, check_texts
from leandit.run.config import RunConfig

# The step of Stream.VALIDATION that draws times. Step 0 draws the noise.
TIME_STEP = 1


def draw_held_out(
    config: RunConfig, objective: Objective, conditioner: Conditioner, codec: Codec, batch: Batch
) -> tuple[Noised, Conditioning]:
    """Return noised held-out pictures and their conditions, on the conditioner's device. No condition is dropped.

    Noise and times depend only on the run's seed and the index of a picture. Times have the training distribution.
    Raises LeanDiTError if the model reads text and a picture has no caption.
    """
    cond = condition_of(config, conditioner, batch)
    x0 = codec.encode(batch.images.to(conditioner.device))
    eps = torch.from_numpy(normal(config.seed, Stream.VALIDATION, batch.indices, tuple(x0.shape[1:])))
    u = torch.from_numpy(uniform(config.seed, Stream.VALIDATION, batch.indices, step=TIME_STEP))
    return objective.draw(x0, u.to(x0.device), eps.to(x0.device)), cond


def condition_of(config: RunConfig, conditioner: Conditioner, batch: Batch) -> Conditioning:
    """Return what the pictures of a batch show: their captions or their labels, none dropped.

    Raises LeanDiTError if the model reads text and a picture has no caption.
    """
    check_texts(config.text, batch)
    asked: Wanted = batch.texts
    if not config.model.conditions_on_text:
        asked = batch.labels.tolist() if batch.labels is not None and config.model.num_classes else None
    return conditioner(asked, checked=True)


def loss_per_picture(
    model: Backbone, objective: Objective, noised: Noised, cond: Conditioning
) -> Float[Tensor, " batch"]:
    """Return the objective's loss per picture: the sum of its parts, without auxiliary losses."""
    parts = objective.loss(model(noised.x_t, noised.t, cond).prediction.float(), noised)
    return torch.stack(list(parts.values())).sum(0)
