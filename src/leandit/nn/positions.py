"""Positions of patches in the picture."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def sincos_positions(dim: int, grid: int, base_grid: int | None = None) -> Float[Tensor, "{grid*grid} {dim}"]:
    """Return fixed two-dimensional sin-cos positions for a square grid of patches in row-major order.

    The first half of the width encodes the column, the second the row; each half is [sin, cos] of the coordinate
    times 10000^(-4 i / dim). Coordinates are k base_grid / grid, k = 0..grid-1, so that a larger grid divides the span
    of the grid that a model learned on more finely; without `base_grid` they are k. Computed in float64. `dim` must
    be divisible by 4.

    Reference: DiT (arXiv 2212.09748), after MAE; PixArt-alpha (arXiv 2310.00426), section 2.4, for the interpolation.
    """
    frequency = 10_000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    coordinate = torch.arange(grid, dtype=torch.float64) * ((base_grid or grid) / grid)
    angle = coordinate[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], dim=-1)
    column = axis[None].expand(grid, grid, -1)
    row = axis[:, None].expand(grid, grid, -1)
    return torch.cat([column, row], dim=-1).reshape(grid * grid, dim).float()
