"""One matrix product per expert over the pairs that it received.

Legend: P pairs sorted by expert, E experts, D input width, F output width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

# Low-precision matrix libraries compile a kernel for each number of rows that they meet, at about a millisecond
# each; routed counts would hardly ever repeat. With multiples of BLOCK they do. It is also large enough for rows
# not to depend on how many there are (see `leandit.ops.linear`).
BLOCK = 64


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


def _blocks(counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Cut every expert's rows into one part of a multiple of BLOCK rows and a shorter rest."""
    start = 0
    for expert, count in enumerate(counts):
        whole = count - count % BLOCK
        if whole:
            yield expert, slice(start, start + whole)
        if count > whole:
            yield expert, slice(start + whole, start + count)
        start += count


def _is_rest(rows: slice) -> bool:
    return (rows.stop - rows.start) % BLOCK != 0


def _pad(x_ND: Tensor, rows: slice) -> Tensor:
    missing = -(rows.stop - rows.start) % BLOCK
    return F.pad(x_ND[rows], (0, 0, 0, missing)) if missing else x_ND[rows]


class _GroupedLinear(torch.autograd.Function):
    """A loop over experts that writes into buffers of the final size: no concatenation, no copies of whole segments."""

    @staticmethod
    def forward(ctx: Any, x_PD: Tensor, weight_EDF: Tensor, bias_EF: Tensor, counts: tuple[int, ...]) -> Tensor:
        low_EDF, low_bias_EF = weight_EDF.to(x_PD.dtype), bias_EF.to(x_PD.dtype)
        ctx.save_for_backward(x_PD, low_EDF)
        ctx.counts, ctx.weight_dtype = counts, weight_EDF.dtype
        out_PF = x_PD.new_empty(x_PD.shape[0], weight_EDF.shape[2])
        for expert, rows in _blocks(counts):
            if _is_rest(rows):
                padded = torch.addmm(low_bias_EF[expert], _pad(x_PD, rows), low_EDF[expert])
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
        for expert, rows in _blocks(ctx.counts):
            block = _pad(grad_PF, rows)
            if grad_x_PD is not None:
                _input_gradient(block, low_EDF[expert], grad_x_PD, rows)
            grad_weight_EDF[expert].addmm_(_pad(x_PD, rows).T, block)
            grad_bias_EF[expert] += block.sum(0)
        return grad_x_PD, grad_weight_EDF.to(ctx.weight_dtype), grad_bias_EF.to(ctx.weight_dtype), None


def _input_gradient(block: Tensor, weight_DF: Tensor, grad_x_PD: Tensor, rows: slice) -> None:
    if _is_rest(rows):
        grad_x_PD[rows] = (block @ weight_DF.T)[: rows.stop - rows.start]
    else:
        torch.mm(block, weight_DF.T, out=grad_x_PD[rows])
