"""Fit the heads by the symmetric contrastive loss, on features that were computed once."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from leandit.config import Config
from leandit.evaluation.alignment.heads import AlignmentHeads
from leandit.random import Stream, generator


class FitConfig(Config):
    """How the heads are fitted."""

    epochs: int = Field(60, ge=1)
    batch_size: int = Field(512, ge=2)
    # Peak rate of AdamW: a linear rise over a twentieth of the steps, then a cosine to zero.
    rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    # On the encoders' features and on the hidden layer.
    dropout: float = Field(0.3, ge=0, lt=1)
    hidden: int = Field(512, ge=1)
    dim: int = Field(256, ge=1)
    # Cosines are divided by it before the softmax.
    temperature: float = Field(0.07, gt=0)
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
