"""Rotary positions of patches in two dimensions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from leandit.grid import Grid
from leandit.nn.embeddings import kept_table


def rope_2d(
    head_dim: int,
    grid: Grid,
    base: float = 10_000.0,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "2 {grid.tokens} {head_dim//2}"]:
    """Return [cos, sin] of the rotation angles of each pair of channels, for a grid in row-major order.

    The first half of the pairs encodes the row r, the second half the column c: pair i of a half has the angle r w_i or
    c w_i, with w_i = base^(-4 i / head_dim), i = 0..head_dim/4-1. The angles of a patch do not depend on the size of
    the grid, so a larger grid extends a smaller one. Computed in float64 and rounded to float32. `head_dim` must be
    divisible by 4. The table is kept and shared: do not write into it.

    Reference: RoFormer (arXiv 2104.09864) for each axis. DiT-Air (arXiv 2503.10618) rotates image tokens in two
    dimensions, and does not state base, pairing or split.
    """
    if torch.compiler.is_compiling():
        return _rope_op(torch.empty(0, device=device, dtype=dtype), head_dim, grid.height, grid.width, base)
    return _rope(torch.device(device or torch.get_default_device()), dtype, head_dim, grid, base)


@kept_table
def _rope(device: torch.device, dtype: torch.dtype, head_dim: int, grid: Grid, base: float) -> Tensor:
    frequency = base ** (-torch.arange(head_dim // 4, dtype=torch.float64, device=device) / (head_dim // 4))
    row, column = (
        torch.arange(count, dtype=torch.float64, device=device)[:, None] * frequency
        for count in (grid.height, grid.width)
    )
    shape = (grid.height, grid.width, -1)
    angle = torch.cat([row[:, None].expand(shape), column[None].expand(shape)], dim=-1).reshape(grid.tokens, -1)
    return torch.stack([angle.cos(), angle.sin()]).float().to(dtype)


# torch.compile sees one operator, as for the sin-cos positions.
@torch.library.custom_op(
    "leandit::rope_2d",
    mutates_args=(),
    schema="(Tensor like, int head_dim, SymInt height, SymInt width, float base) -> Tensor",
)
def _rope_op(like: Tensor, head_dim: int, height: int, width: int, base: float) -> Tensor:
    return _rope(like.device, like.dtype, head_dim, Grid(height, width), base).clone()


@_rope_op.register_fake
def _(like: Tensor, head_dim: int, height: int, width: int, base: float) -> Tensor:
    return like.new_empty(2, height * width, head_dim // 2)


def rotate(
    x: Float[Tensor, "batch heads tokens head_dim"], rotation: Float[Tensor, "2 tokens half_head_dim"]
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Rotate each pair of channels (2 i, 2 i + 1) of queries or keys by the angle of its token.

    The product of a query and a key then depends only on the difference of their positions.
    """
    cos, sin = rotation
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)
