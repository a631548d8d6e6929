"""The Inception score: how certain and how varied a classifier finds the pictures."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

from leandit.random import Stream, generator


def inception_score(logits: Float[Tensor, "samples classes"], splits: int = 10, seed: int = 0) -> tuple[float, float]:
    """Return mean and standard deviation (divisor `splits`) over splits of exp E_x KL(p(y|x) || p(y)).

    p(y) is the mean of p(y|x) over the split. The pictures are dealt to the splits in an order that depends on the
    seed alone, since those drawn for one class lie together otherwise.

    Reference: Salimans et al. (arXiv 1606.03498), section 4, with its 10 splits.
    """
    order = torch.from_numpy(generator(seed, Stream.ORDER, 0).permutation(len(logits)))
    shuffled = logits.double()[order].log_softmax(1)
    # As the original code cuts a number of pictures that the splits do not divide.
    edges = [n * len(logits) // splits for n in range(splits + 1)]
    scores = torch.stack([_score(shuffled[a:b]) for a, b in itertools.pairwise(edges)])
    return float(scores.mean()), float(scores.std(correction=0))


def _score(log_p: Float[Tensor, "samples classes"]) -> Tensor:
    log_marginal = log_p.logsumexp(0) - torch.log(torch.tensor(float(len(log_p)), dtype=torch.float64))
    divergence = (log_p.exp() * (log_p - log_marginal)).sum(1)
    return divergence.mean().exp()
