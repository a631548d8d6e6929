"""Improved precision and recall: the share of each set that is in the neighbourhood of the other."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_BLOCK = 256
# Pairs in one direct computation of distances.
_PAIRS = 4096
# Share of |a|^2 + |b|^2 by which a squared distance from a matrix product may be wrong: a thousand times what float64
# rounds away over the few thousand numbers of a feature.
_ROUNDING = 1e-9


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
    """Return each point's distance to its k-th nearest neighbour, itself not counted; for points in float64."""
    radii = []
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        squares, error = _squares(block, points)
        rows = torch.arange(len(block), device=points.device)
        squares[rows, start + rows] = torch.inf  # a point is not its own neighbour, though its double is
        # Exact near the k-th; a distance that differs from it by more than the rounding stays on its side.
        kth = squares.kthvalue(k, dim=1, keepdim=True).values
        unsure = (squares - kth).abs() <= error
        squares[unsure] = _distances(block, points, unsure).square()
        radii.append(squares.kthvalue(k, dim=1).values.sqrt())
    return torch.cat(radii)


def covered(
    points: Float[Tensor, "points dim"], centres: Float[Tensor, "centres dim"], radii: Float[Tensor, " centres"]
) -> Bool[Tensor, " points"]:
    """Return which points lie within, or on the surface of, any of the balls; all in float64."""
    return torch.cat([_covered(block, centres, radii) for block in points.split(_BLOCK)])


def _covered(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    squares, error = _squares(points, centres)
    beyond = squares - radii.square()
    inside = (beyond < -error).any(1)
    # A matrix product's rounding would move a point on a surface to either side of it.
    unsure = (beyond.abs() <= error) & ~inside[:, None]
    rows, columns = unsure.nonzero(as_tuple=True)
    on_or_in = _distances(points, centres, unsure) <= radii[columns]
    inside[rows[on_or_in]] = True
    return inside


def _squares(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distances of all pairs by a matrix product, and by how much each may be wrong."""
    sums = a.square().sum(1)[:, None] + b.square().sum(1)
    return (sums - 2 * a @ b.T).clamp(min=0), _ROUNDING * sums


def _distances(a: Tensor, b: Tensor, chosen: Tensor) -> Tensor:
    """Return the distances of the chosen pairs, each from the differences themselves."""
    pairs = zip(*(each.split(_PAIRS) for each in chosen.nonzero(as_tuple=True)), strict=True)
    parts = [torch.linalg.vector_norm(a[rows] - b[columns], dim=1) for rows, columns in pairs]
    return torch.cat(parts)
