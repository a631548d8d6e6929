"""Maximum mean discrepancies: KID with a cubic kernel, CMMD with a Gaussian one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from leandit.random import Stream, subsets

# The paper's bandwidth, and the factor that makes its numbers readable.
CMMD_SIGMA = 10.0
CMMD_SCALE = 1000.0
_BLOCK = 2048


def cubic_mmd(x: Float[Tensor, "first dim"], y: Float[Tensor, "second dim"]) -> float:
    """Return the unbiased estimate of MMD² under k(a, b) = (a·b / dim + 1)³; it may be negative.

    sum_{i != j} k(x_i, x_j) / (m (m - 1)) + sum_{i != j} k(y_i, y_j) / (n (n - 1)) - 2 sum_{i, j} k(x_i, y_j) / (m n)

    Reference: Bińkowski et al. (arXiv 1801.01401), section 3; Gretton et al. (2012), eq. 3.
    """
    x, y = x.double(), y.double()
    within = sum(_off_diagonal_mean(_cubic(z, z)) for z in (x, y))
    return float(within - 2 * _cubic(x, y).mean())


def kid(
    real: Float[Tensor, "reals dim"],
    drawn: Float[Tensor, "samples dim"],
    num_subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return mean and standard deviation (divisor `num_subsets`) of `cubic_mmd` between random subsets of both sets.

    A subset is drawn without replacement, as a function of the seed and its number; `subset_size` is at most the size
    of the smaller set. The mean is unbiased for any size.

    Reference: Bińkowski et al. (arXiv 1801.01401), section 4, whose 100 subsets of 1,000 are usual.
    """
    numbers = range(num_subsets)
    of_real = subsets(seed, Stream.ORDER, [2 * n for n in numbers], len(real), subset_size)
    of_drawn = subsets(seed, Stream.ORDER, [2 * n + 1 for n in numbers], len(drawn), subset_size)
    values = [cubic_mmd(real[a], drawn[b]) for a, b in zip(of_real, of_drawn, strict=True)]
    estimates = torch.tensor(values, dtype=torch.float64)
    return float(estimates.mean()), float(estimates.std(correction=0))


def cmmd(x: Float[Tensor, "first dim"], y: Float[Tensor, "second dim"]) -> float:
    """Return 1000 (mean k(x, x') + mean k(y, y') - 2 mean k(x, y)), a biased MMD² under a Gaussian kernel.

    k(a, b) = exp(-|a - b|² / (2 · 10²)). Means are over all pairs, a picture with itself included: the paper's equation
    leaves those out, its public code, by which numbers are compared, does not. Features are embeddings of length 1.

    Reference: Jayasumana et al. (arXiv 2401.09603), section 4 and its public code.
    """
    x, y = x.double(), y.double()
    return float(CMMD_SCALE * (_gaussian_mean(x, x) + _gaussian_mean(y, y) - 2 * _gaussian_mean(x, y)))


def _cubic(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _off_diagonal_mean(gram: Tensor) -> Tensor:
    count = len(gram)
    return (gram.sum() - gram.trace()) / (count * (count - 1))


def _gaussian_mean(a: Tensor, b: Tensor) -> Tensor:
    """Row blocks keep a large set's Gram matrix out of memory."""
    sums = [torch.exp(-torch.cdist(block, b).square() / (2 * CMMD_SIGMA**2)).sum() for block in a.split(_BLOCK)]
    return torch.stack(sums).sum() / (len(a) * len(b))
