"""The CPU's way: one expert after the other, on rows that stay in the cache.

The token gather stands before the first product and the weighted sum behind the second, so that neither a copy of the
input for every pair nor an output for every pair is kept for the backward pass. What is kept is what a dense
feed-forward keeps: the rows before and after the activation, which are together as large as that one's.

Legend: T tokens, E experts, R rows (see `layout`), D width, F width after the first map, H hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from leandit.ops.expert_ffn.layout import Layout, combine, layout, weight_gradients

_gelu = torch.ops.aten.gelu.out
_gelu_backward = torch.ops.aten.gelu_backward
# Small enough to change nothing, and large enough for its products to be normal numbers.
_TINY = 1e-18


def forward(
    x_TD: Float[Tensor, "tokens dim"],
    weight_TE: Float[Tensor, "tokens experts"],
    mask_TE: Bool[Tensor, "tokens experts"],
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    activation: str,
    kept_rows: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, and the rows before and after the activation: `kept_rows` of them, or none with None."""
    w1_EDF, b1_EF, w2_EHD, b2_ED = weights
    plan = layout(weight_TE, mask_TE)
    rows = len(plan.token)
    keep = kept_rows or 0
    pre_RF, hidden_RH = x_TD.new_empty(keep, w1_EDF.shape[2]), x_TD.new_empty(keep, w2_EHD.shape[1])
    y_RD = x_TD.new_empty(rows, x_TD.shape[1])
    for e, part in _parts(plan):
        x = x_TD.index_select(0, plan.token[part])
        pre = torch.addmm(b1_EF[e], x, w1_EDF[e], out=pre_RF[part] if keep else None)
        hidden = _activate(pre, activation, hidden_RH[part] if keep else None)
        torch.addmm(b2_ED[e], hidden, w2_EHD[e], out=y_RD[part])
    return combine(y_RD, plan, True, x_TD.shape[0]), pre_RF, hidden_RH


def backward(
    grad_TD: Float[Tensor, "tokens dim"],
    x_TD: Float[Tensor, "tokens dim"],
    weight_TE: Float[Tensor, "tokens experts"],
    mask_TE: Bool[Tensor, "tokens experts"],
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    kept: tuple[Tensor, Tensor],
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight_TE, w1, b1, w2 and b2.

    With g the gradient of the output, w the weight of a pair and a its hidden row, the gradient of w is
    <g, a W2 + b2> = <w g W2ᵀ, a> / w + <g, b2>: neither the expert's output nor g W2ᵀ without w has to be there.
    """
    w1_EDF, b1_EF, w2_EHD, b2_ED = weights
    pre_RF, hidden_RH = kept
    plan = layout(_nonzero(weight_TE), mask_TE)
    weight_R1 = plan.weight.to(x_TD.dtype)[:, None]
    grad_x_RD = x_TD.new_empty(len(plan.token), x_TD.shape[1])
    grad_weight_R = weight_TE.new_empty(len(plan.token))
    grad_w1_EDF, grad_b1_EF, grad_w2_EHD = (_empty_gradient(weight, plan) for weight in (w1_EDF, b1_EF, w2_EHD))
    for e, part in _parts(plan):
        token = plan.token[part]
        x, hidden = x_TD.index_select(0, token), hidden_RH[part]
        g = grad_TD.index_select(0, token).mul_(weight_R1[part])
        grad_hidden = g @ w2_EHD[e].T
        torch.mm(hidden.T, g, out=grad_w2_EHD[e])
        grad_weight_R[part] = _row_dot(grad_hidden, hidden)
        grad_pre = _activation_gradient(grad_hidden, pre_RF[part], activation)
        torch.mm(x.T, grad_pre, out=grad_w1_EDF[e])
        torch.sum(grad_pre, 0, out=grad_b1_EF[e])
        torch.mm(grad_pre, w1_EDF[e].T, out=grad_x_RD[part])
    hidden_P = grad_weight_R[plan.row] / plan.pair_weight
    grad_weight_TE, grad_b2_ED = weight_gradients(grad_TD, hidden_P, weight_TE, mask_TE, b2_ED)
    return (
        combine(grad_x_RD, plan, False, x_TD.shape[0]),
        grad_weight_TE,
        grad_w1_EDF,
        grad_b1_EF,
        grad_w2_EHD,
        grad_b2_ED,
    )


def _nonzero(weight_TE: Tensor) -> Tensor:
    """Return the weights with what is all but zero replaced by a number that can be divided by."""
    return torch.where(weight_TE.abs() < _TINY, _TINY, weight_TE)


def _empty_gradient(weight_E: Tensor, plan: Layout) -> Tensor:
    """Return room for a gradient, already zero for the experts without pairs; filling all of it takes its time."""
    grad_E = torch.empty_like(weight_E)
    sizes = plan.ends.diff(prepend=plan.ends.new_zeros(1))
    for expert in (sizes == 0).nonzero()[:, 0].tolist():
        grad_E[expert].zero_()
    return grad_E


def _parts(plan: Layout) -> Iterator[tuple[int, slice]]:
    """Yield every expert that has rows, with them."""
    start = 0
    for expert, end in enumerate(plan.ends.tolist()):
        if end > start:
            yield expert, slice(start, end)
        start = end


def _activate(pre: Tensor, activation: str, out: Tensor | None) -> Tensor:
    if activation == "gelu":
        return _gelu(pre, approximate="tanh", out=torch.empty_like(pre) if out is None else out)
    a, b = pre.chunk(2, dim=-1)
    return torch.mul(torch.nn.functional.silu(a), b, out=out)


def _activation_gradient(grad: Tensor, pre: Tensor, activation: str) -> Tensor:
    if activation == "gelu":
        return _gelu_backward(grad, pre, approximate="tanh")
    a, b = pre.chunk(2, dim=-1)
    sigmoid = torch.sigmoid(a)
    silu = a * sigmoid
    return torch.cat([grad * b * (sigmoid + silu * (1 - sigmoid)), grad * silu], dim=-1)


def _row_dot(a_RH: Tensor, b_RH: Tensor) -> Tensor:
    """Return the dot product of each pair of rows, summed in fp32."""
    return (a_RH * b_RH).sum(1, dtype=torch.promote_types(a_RH.dtype, torch.float32))
