"""Embeddings of the time, the class label and the position in the picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, wraps

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.grid import Grid
from leandit.nn.parts import Linear
from leandit.ops import row_stable_linear

_MAX_PERIOD = 10_000


def sinusoids(
    t: Float[Tensor, " batch"], num_frequencies: int, freq_shift: float, time_scale: float
) -> Float[Tensor, "batch {2*num_frequencies}"]:
    """Return [cos(s t w_i), sin(s t w_i)] with the time scale s and w_i = 10000^(-i / (n - freq_shift)), i = 0..n-1.

    Reference: DiT uses freq_shift 0; diffusers' DiT pipeline uses 1.
    """
    t = t.to(torch.promote_types(t.dtype, torch.float32))
    index = torch.arange(num_frequencies, device=t.device, dtype=t.dtype)
    frequency = torch.exp(-math.log(_MAX_PERIOD) * index / (num_frequencies - freq_shift))
    angle = time_scale * t[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Sinusoids -> Linear -> SiLU -> Linear."""

    def __init__(self, dim: int, freq_shift: float, time_scale: float, num_sinusoids: int = 256) -> None:
        super().__init__()
        self.frequencies = num_sinusoids // 2, freq_shift, time_scale
        self.first = Linear(num_sinusoids, dim)
        self.second = Linear(dim, dim)

    def forward(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        hidden = sinusoids(t, *self.frequencies).to(self.first.weight.dtype)
        hidden = F.silu(row_stable_linear(hidden, self.first.weight, self.first.bias))
        return row_stable_linear(hidden, self.second.weight, self.second.bias)


class LabelEmbedding(nn.Module):
    """One vector per class and, as the last row, one for "no label", which guidance and label dropout use."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        # nn.Embedding(...) would draw weights, and `init_weights` would draw them again; from_pretrained draws nothing.
        self.table = nn.Embedding.from_pretrained(torch.empty(num_classes + 1, dim), freeze=False)

    def forward(self, label: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Embed labels 0..num_classes-1. Any negative label means "no label"."""
        return self.table(torch.where(label < 0, self.num_classes, label))


def sincos_positions(
    dim: int,
    grid: Grid,
    span: Grid | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "{grid.tokens} {dim}"]:
    """Return fixed two-dimensional sin-cos positions for a grid of patches in row-major order.

    The first half of the width encodes the column, the second the row; each half is [sin, cos] of the coordinate times
    10000^(-4 i / dim). The coordinate of row k is k span.height / grid.height, that of column k is k span.width /
    grid.width: every grid divides the `span` that the model learned. Computed in float64 and rounded to float32. `dim`
    must be divisible by 4. The table is kept and shared: do not write into it.

    Reference: DiT (arXiv 2212.09748), after MAE; PixArt-alpha (arXiv 2310.00426), section 2.4, for the interpolation.
    """
    span = span or grid
    if torch.compiler.is_compiling():
        like = torch.empty(0, device=device, dtype=dtype)
        return _sincos_op(like, dim, grid.height, grid.width, span.height, span.width)
    return _sincos(torch.device(device or torch.get_default_device()), dtype, dim, grid, span)


def kept_table(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep the last 32 results of a function of (device, dtype, ...), except fake tensors, which have no content."""

    def plain(device: torch.device, dtype: torch.dtype, *arguments: object) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return compute(device, dtype, *arguments)

    cached = lru_cache(maxsize=32)(plain)

    @wraps(compute)
    def call(device: torch.device, dtype: torch.dtype, *arguments: object) -> Tensor:
        real = type(torch.empty(0, device=device)) is Tensor
        return (cached if real else plain)(device, dtype, *arguments)

    return call


@kept_table
def _sincos(device: torch.device, dtype: torch.dtype, dim: int, grid: Grid, span: Grid) -> Tensor:
    frequency = 10_000.0 ** (-torch.arange(dim // 4, dtype=torch.float64, device=device) / (dim // 4))
    halves = []
    for count, over, view in ((grid.width, span.width, (1, -1)), (grid.height, span.height, (-1, 1))):
        coordinate = torch.arange(count, dtype=torch.float64, device=device) * (over / count)
        angle = (coordinate[:, None] * frequency).view(*view, dim // 4)
        halves.append(torch.cat([angle.sin(), angle.cos()], dim=-1).expand(grid.height, grid.width, -1))
    return torch.cat(halves, dim=-1).reshape(grid.tokens, dim).float().to(dtype)


# torch.compile sees the table as one operator, so a compiled model computes the same bits. It gets its own copy.
_SCHEMA = "(Tensor like, int dim, SymInt height, SymInt width, SymInt span_height, SymInt span_width) -> Tensor"


@torch.library.custom_op("leandit::sincos_positions", mutates_args=(), schema=_SCHEMA)
def _sincos_op(like: Tensor, dim: int, *sides: int) -> Tensor:
    return _sincos(like.device, like.dtype, dim, Grid(*sides[:2]), Grid(*sides[2:])).clone()


@_sincos_op.register_fake
def _(like: Tensor, dim: int, *sides: int) -> Tensor:
    return like.new_empty(sides[0] * sides[1], dim)
