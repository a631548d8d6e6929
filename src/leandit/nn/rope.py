"""Rotary positions of patches in two dimensions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rope_2d(head_dim: int, grid: int, base: float = 10_000.0) -> Float[Tensor, "2 {grid*grid} {head_dim//2}"]:
    """Return [cos, sin] of the angles by which each pair of channels turns, for a square grid in row-major order.

    The first half of the pairs turns with the row r, the second with the column c: pair i of a half by r w_i or
    c w_i, with w_i = base^(-4 i / head_dim), i = 0..head_dim/4-1. The angles of a patch do not depend on the size of
    the grid, so that a larger picture extends them. Computed in float64. `head_dim` must be divisible by 4.

    Reference: RoFormer (arXiv 2104.09864), one axis at a time; DiT-Air (arXiv 2503.10618) turns image tokens in two
    dimensions without stating base, pairing or split.
    """
    frequency = base ** (-torch.arange(head_dim // 4, dtype=torch.float64) / (head_dim // 4))
    axis = torch.arange(grid, dtype=torch.float64)[:, None] * frequency
    row = axis[:, None].expand(grid, grid, -1)
    column = axis[None].expand(grid, grid, -1)
    angle = torch.cat([row, column], dim=-1).reshape(grid * grid, -1)
    return torch.stack([angle.cos(), angle.sin()]).float()


def rotate(
    x: Float[Tensor, "batch heads tokens head_dim"], rotation: Float[Tensor, "2 tokens half_head_dim"]
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Turn each pair of neighbouring channels (2 i, 2 i + 1) of queries or keys by the angle of its token.

    The product of a query and a key then depends on the difference of their positions alone.
    """
    cos, sin = rotation
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)
