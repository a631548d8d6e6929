"""How early a picture's own caption comes among others: ranks, and R-precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from leandit.random import Stream, generator


def ranks(similarity: Float[Tensor, "pictures texts"], own: Int[Tensor, " pictures"]) -> Int[Tensor, " pictures"]:
    """Return the rank of each picture's own caption, 1 being first; another one that ties with it goes before it."""
    mine = similarity.gather(1, own[:, None])
    # Its own caption is among those that are at least as good as itself.
    return (similarity >= mine).sum(1)


def choose_others(concepts: Sequence[str], pool: Sequence[str], count: int, seed: int) -> np.ndarray:
    """Return `count` places in `pool` for each of `concepts`, [len(concepts), count], none showing the same concept.

    A row is a pure function of (seed, its number, the pool); a pool with too few other concepts is a ValueError.
    """
    names = np.array(pool)
    rows = []
    for place, concept in enumerate(concepts):
        foreign = np.flatnonzero(names != concept)
        rows.append(generator(seed, Stream.VALIDATION, place).choice(foreign, count, replace=False))
    return np.array(rows)


def r_precision(
    own: Float[Tensor, " pictures"], others: Float[Tensor, "pictures others"]
) -> tuple[float, Bool[Tensor, " pictures"]]:
    """Return the share of pictures whose own caption is closer than all others, and which those are; a tie is lost.

    Reference: AttnGAN (arXiv 1711.10485), section 4, with R = 1 relevant caption among 100.
    """
    first = own > others.max(1).values
    return float(first.double().mean()), first


def retrieval_figures(similarity: Float[Tensor, "pictures texts"], own: Int[Tensor, " pictures"]) -> dict[str, float]:
    """Return R@1, R@5 and the median rank among all texts."""
    place = ranks(similarity, own)
    return {
        "R@1": float((place <= 1).double().mean()),
        "R@5": float((place <= 5).double().mean()),
        "median rank": float(torch.quantile(place.double(), 0.5)),
    }
