"""One matrix product per expert over the pairs that it received.

Legend: P pairs sorted by expert, E experts, D input width, F output width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from leandit.ops.linear import MIN_ROWS, pad_rows


def grouped_linear(
    x_PD: Float[Tensor, "pairs dim"],
    weight_EDF: Float[Tensor, "experts dim out"],
    bias_EF: Float[Tensor, "experts out"],
    counts: Sequence[int],
) -> Float[Tensor, "pairs out"]:
    """Return x_p W_e + b_e for every pair p of expert e; the first counts[0] rows belong to expert 0, and so on.

    Under autocast the product runs in the autocast dtype and the gradients come back in the weights' own. Every
    row is independent of how many rows its expert received (see `leandit.ops.linear`).
    """
    if len(counts) != weight_EDF.shape[0] or sum(counts) != x_PD.shape[0]:
        raise ValueError(
            f"{x_PD.shape[0]} rows do not divide into counts {list(counts)} of {weight_EDF.shape[0]} experts"
        )
    device = x_PD.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_EDF.dtype
    with torch.autocast(device, enabled=False):
        out: Tensor = _GroupedLinear.apply(x_PD.to(dtype), weight_EDF, bias_EF, tuple(counts))
    return out


def grouped_linear_reference(
    x_PD: Tensor, weight_EDF: Tensor, bias_EF: Tensor, counts: Sequence[int]
) -> Float[Tensor, "pairs out"]:
    """The same with the weight of every pair written out: O(P D F) memory, differentiated by torch alone."""
    expert_P = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return (x_PD[:, :, None] * weight_EDF[expert_P]).sum(1) + bias_EF[expert_P]


def _segments(counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
    start = 0
    for expert, count in enumerate(counts):
        if count:
            yield expert, slice(start, start + count)
        start += count


class _GroupedLinear(torch.autograd.Function):
    """A loop over experts that writes into buffers of the final size: no concatenation, no copies of segments."""

    @staticmethod
    def forward(ctx: Any, x_PD: Tensor, weight_EDF: Tensor, bias_EF: Tensor, counts: tuple[int, ...]) -> Tensor:
        low_EDF, low_bias_EF = weight_EDF.to(x_PD.dtype), bias_EF.to(x_PD.dtype)
        ctx.save_for_backward(x_PD, low_EDF)
        ctx.counts, ctx.weight_dtype = counts, weight_EDF.dtype
        out_PF = x_PD.new_empty(x_PD.shape[0], weight_EDF.shape[2])
        for expert, rows in _segments(counts):
            if rows.stop - rows.start < MIN_ROWS:
                padded = torch.addmm(low_bias_EF[expert], pad_rows(x_PD[rows]), low_EDF[expert])
                out_PF[rows] = padded[: rows.stop - rows.start]
            else:
                torch.addmm(low_bias_EF[expert], x_PD[rows], low_EDF[expert], out=out_PF[rows])
        return out_PF

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x_PD, low_EDF = ctx.saved_tensors
        grad_PF = grads[0].contiguous()
        grad_x_PD = torch.empty_like(x_PD) if ctx.needs_input_grad[0] else None
        # An expert without pairs gets the zero gradient, so these start at zero.
        grad_weight_EDF = torch.zeros_like(low_EDF)
        grad_bias_EF = low_EDF.new_zeros(low_EDF.shape[0], low_EDF.shape[2])
        for expert, rows in _segments(ctx.counts):
            if grad_x_PD is not None:
                torch.mm(grad_PF[rows], low_EDF[expert].T, out=grad_x_PD[rows])
            torch.mm(x_PD[rows].T, grad_PF[rows], out=grad_weight_EDF[expert])
            torch.sum(grad_PF[rows], 0, out=grad_bias_EF[expert])
        return grad_x_PD, grad_weight_EDF.to(ctx.weight_dtype), grad_bias_EF.to(ctx.weight_dtype), None
