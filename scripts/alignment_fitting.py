"""What only the fit of the alignment heads needs: pictures made worse, the loss, the fit, and its figures.

Degraded pictures are shifted, blurred and noisy, as generated ones are.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from leandit.config import Config
from leandit.evaluation.alignment.heads import AlignmentHeads
from leandit.random import Stream, generator


class DegradeConfig(Config):
    """How much worse a picture gets at most; each amount is drawn evenly from zero to these."""

    shift: int = Field(2, ge=0, le=8)
    """Pixels to each side; the border is repeated."""
    blur: float = Field(1.0, ge=0, le=4)
    """Standard deviation of a Gaussian blur, pixels; half of the pictures stay sharp."""
    noise: float = Field(25.0, ge=0, le=128)
    """Standard deviation of Gaussian noise on 0..255; half of the pictures stay clean."""


def degrade(
    pictures: UInt8[Tensor, "samples height width channels"], config: DegradeConfig, seed: int, version: int
) -> UInt8[Tensor, "samples height width channels"]:
    """Return the pictures shifted, blurred and noised; a pure function of (seed, place among them, version)."""
    worse = [_degrade_one(picture, config, _draws(seed, i, version)) for i, picture in enumerate(pictures)]
    return torch.stack(worse)


def _draws(seed: int, index: int, version: int) -> np.random.Generator:
    return generator(seed, Stream.AUGMENT, index, version)


def _degrade_one(picture: Tensor, config: DegradeConfig, draws: np.random.Generator) -> Tensor:
    planes = picture.permute(2, 0, 1).float()
    down, right = draws.integers(-config.shift, config.shift, size=2, endpoint=True)
    blur, noise = (amount * max(0.0, 2 * draws.random() - 1) for amount in (config.blur, config.noise))
    grain = torch.from_numpy(draws.standard_normal(planes.shape, dtype=np.float32))
    planes = _blurred(_shifted(planes, int(down), int(right)), blur) + noise * grain
    return planes.round().clamp(0, 255).byte().permute(1, 2, 0)


def _shifted(
    planes: Float[Tensor, "channels height width"], down: int, right: int
) -> Float[Tensor, "channels height width"]:
    margin = max(abs(down), abs(right))
    padded = F.pad(planes, (margin,) * 4, mode="replicate")
    height, width = planes.shape[1:]
    return padded[:, margin - down : margin - down + height, margin - right : margin - right + width]


def _blurred(planes: Float[Tensor, "channels height width"], sigma: float) -> Float[Tensor, "channels height width"]:
    if sigma < 0.1:
        return planes
    radius = int(3 * sigma) + 1
    weights = torch.exp(-(torch.arange(-radius, radius + 1).float() ** 2) / (2 * sigma**2))
    weights = weights / weights.sum()
    padded = F.pad(planes, (radius,) * 4, mode="replicate")[:, None]
    rows = F.conv2d(padded, weights[None, None, :, None])
    return F.conv2d(rows, weights[None, None, None, :])[:, 0]


class FitConfig(Config):
    """How the heads are fitted."""

    epochs: int = Field(60, ge=1)
    batch_size: int = Field(512, ge=2)
    rate: float = Field(1e-3, gt=0)
    """Peak rate of AdamW: a linear rise over a twentieth of the steps, then a cosine to zero."""
    weight_decay: float = Field(0.1, ge=0)
    dropout: float = Field(0.3, ge=0, lt=1)
    """On the encoders' features and on the hidden layer."""
    hidden: int = Field(512, ge=1)
    dim: int = Field(256, ge=1)
    temperature: float = Field(0.07, gt=0)
    """Cosines are divided by it before the softmax."""
    seed: int = Field(0, ge=0)


def contrastive_loss(
    pictures: Float[Tensor, "batch dim"], texts: Float[Tensor, "batch dim"], temperature: float
) -> Float[Tensor, ""]:
    """Return the mean of two cross-entropies: of each picture among the texts, of each text among the pictures.

    loss = (CE(S, diag) + CE(S^T, diag)) / 2 with S = pictures texts^T / temperature.

    Reference: Radford et al. (arXiv 2103.00020), figure 3.
    """
    logits = pictures @ texts.T / temperature
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def fit_heads(
    pictures: Float[Tensor, "versions samples picture_dim"], texts: Float[Tensor, "samples text_dim"], config: FitConfig
) -> AlignmentHeads:
    """Return heads fitted on pairs (pictures[v, i], texts[i]); each epoch shows one version v of every picture.

    Deterministic by config.seed on one machine.
    """
    heads = _new_heads(pictures.shape[-1], texts.shape[-1], config)
    optimizer = _optimizer(heads, config)
    batches = math.ceil(len(texts) / config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config.epochs * batches))
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        for epoch in range(config.epochs):
            order, version = _epoch(config.seed, epoch, *pictures.shape[:2])
            for batch in order.chunk(batches):
                points = heads.picture(pictures[version[batch], batch]), heads.text(texts[batch])
                optimizer.zero_grad()
                contrastive_loss(*points, config.temperature).backward()
                optimizer.step()
                schedule.step()
    return heads.eval().requires_grad_(False)


def _new_heads(picture_dim: int, text_dim: int, config: FitConfig) -> AlignmentHeads:
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return AlignmentHeads(picture_dim, text_dim, config.hidden, config.dim, config.dropout).train()


def _optimizer(heads: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    decayed = [p for p in heads.parameters() if p.ndim > 1]
    others = [p for p in heads.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.rate)


def _rate(step: int, steps: int) -> float:
    warmup = max(1, steps // 20)
    return min((step + 1) / warmup, (1 + math.cos(math.pi * step / steps)) / 2)


def _epoch(seed: int, epoch: int, versions: int, count: int) -> tuple[Int[Tensor, " samples"], Int[Tensor, " samples"]]:
    """Return the order of the samples, and the version of each that this epoch shows."""
    draws = generator(seed, Stream.ORDER, epoch)
    return torch.from_numpy(draws.permutation(count)), torch.from_numpy(draws.integers(versions, size=count))


def save_heads(heads: AlignmentHeads, path: Path, about: dict[str, Any]) -> None:
    """Write the heads as float16 safetensors, with what they were fitted on and for as metadata."""
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in heads.state_dict().items()}
    save_file(tensors, path, {"about": json.dumps(about, sort_keys=True)})


def ranks(similarity: Float[Tensor, "pictures texts"], own: Int[Tensor, " pictures"]) -> Int[Tensor, " pictures"]:
    """Return the rank of each picture's own caption, 1 being first; another one that ties with it goes before it."""
    mine = similarity.gather(1, own[:, None])
    # Its own caption is among those that are at least as good as itself.
    return (similarity >= mine).sum(1)


def retrieval_figures(similarity: Float[Tensor, "pictures texts"], own: Int[Tensor, " pictures"]) -> dict[str, float]:
    """Return R@1, R@5 and the median rank among all texts."""
    place = ranks(similarity, own)
    return {
        "R@1": float((place <= 1).double().mean()),
        "R@5": float((place <= 5).double().mean()),
        "median rank": float(torch.quantile(place.double(), 0.5)),
    }
