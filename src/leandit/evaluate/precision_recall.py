"""Improved precision and recall: how many pictures of each set lie in the neighbourhood of the other."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_BLOCK = 1024


def precision_recall(
    real: Float[Tensor, "reals dim"], drawn: Float[Tensor, "samples dim"], k: int = 3
) -> tuple[float, float]:
    """Return precision and recall, each 0 to 1.

    Around each picture of a set lies a ball that reaches to its k-th nearest neighbour in the set, itself not counted.
    Precision is the share of drawn pictures within a ball of a real one, recall the share of real pictures within a
    ball of a drawn one. Both sets need more than k pictures.

    Reference: Kynkäänniemi et al. (arXiv 1904.06991), section 2, k = 3.
    """
    real, drawn = real.double(), drawn.double()
    precision = covered(drawn, real, neighbour_radii(real, k))
    recall = covered(real, drawn, neighbour_radii(drawn, k))
    return float(precision.double().mean()), float(recall.double().mean())


def neighbour_radii(points: Float[Tensor, "points dim"], k: int) -> Float[Tensor, " points"]:
    """Return each point's distance to its k-th nearest neighbour, itself not counted."""
    radii = []
    for start in range(0, len(points), _BLOCK):
        distances = _distances(points[start : start + _BLOCK], points)
        rows = torch.arange(len(distances))
        distances[rows, start + rows] = torch.inf  # a point is not its own neighbour, though its double is
        radii.append(distances.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def covered(
    points: Float[Tensor, "points dim"], centres: Float[Tensor, "centres dim"], radii: Float[Tensor, " centres"]
) -> Bool[Tensor, " points"]:
    """Return which points lie within, or on the surface of, any of the balls."""
    return torch.cat([(_distances(block, centres) <= radii).any(1) for block in points.split(_BLOCK)])


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # Not through a matrix product, whose rounding would move a point on a surface to either side of it.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
