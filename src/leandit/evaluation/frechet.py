"""The Fréchet distance between two sets of features, each taken as a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """Mean and (unbiased) covariance of features, float64."""

    mean: Float[Tensor, " dim"]
    covariance: Float[Tensor, "dim dim"]


def gaussian_of(features: Float[Tensor, "samples dim"]) -> Gaussian:
    """Return mean and covariance with divisor N - 1, computed in float64; two samples at least."""
    x = features.double()
    mean = x.mean(0)
    centred = x - mean
    return Gaussian(mean, centred.T @ centred / (len(x) - 1))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Return |m1 - m2|² + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2).

    The last trace is the sum of the square roots of the eigenvalues of the symmetric S1^(1/2) S2 S1^(1/2), which has
    those of S1 S2. Both decompositions are of symmetric matrices, so covariances of fewer samples than dimensions
    need no added epsilon, and no imaginary part has to be thrown away, as with the root of the product itself.

    Reference: Heusel et al. (arXiv 1706.08500), eq. 6; Dowson and Landau (1982).
    """
    values, vectors = torch.linalg.eigh(first.covariance)
    # Eigenvalues of a singular covariance are zero up to rounding, to either side.
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    inner = root @ second.covariance @ root
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
    shift = (first.mean - second.mean).square().sum()
    return float(shift + first.covariance.trace() + second.covariance.trace() - 2 * cross)
