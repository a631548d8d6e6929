"""Pictures that training never shows, under noise that belongs to them, and the model's loss on them."""

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

# Of the draw of times within Stream.VALIDATION, whose step 0 is the noise.
TIME_STEP = 1


def draw_held_out(
    config: RunConfig, objective: Objective, conditioner: Conditioner, codec: Codec, batch: Batch
) -> tuple[Noised, Conditioning]:
    """Return held-out pictures under noise, and their conditions, none of them dropped, on the conditioner's device.

    Noise and times, the latter of the training's distribution, are functions of the run's seed and a picture's index.
    Raises LeanDiTError for a picture without the caption that the model reads.
    """
    check_texts(config.text, batch)
    x0 = codec.encode(batch.images.to(conditioner.device))
    eps = torch.from_numpy(normal(config.seed, Stream.VALIDATION, batch.indices, tuple(x0.shape[1:])))
    u = torch.from_numpy(uniform(config.seed, Stream.VALIDATION, batch.indices, step=TIME_STEP))
    asked: Wanted = batch.texts
    if not config.model.conditions_on_text:
        asked = batch.labels.tolist() if batch.labels is not None and config.model.num_classes else None
    return objective.draw(x0, u.to(x0.device), eps.to(x0.device)), conditioner(asked, checked=True)


def loss_per_picture(
    model: Backbone, objective: Objective, noised: Noised, cond: Conditioning
) -> Float[Tensor, " batch"]:
    """Return the objective's loss of each picture, the sum of its parts, without auxiliary losses."""
    parts = objective.loss(model(noised.x_t, noised.t, cond).prediction.float(), noised)
    return torch.stack(list(parts.values())).sum(0)
