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
from leandit.ops.linear import onednn_linear, suits_onednn

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
        if keep:
            pre = _product(x, w1_EDF[e], pre_RF[part], b1_EF[e])
            hidden = _activate(pre, activation, hidden_RH[part])
        else:
            hidden = _hidden(x, w1_EDF[e], b1_EF[e], activation)
        _product(hidden, w2_EHD[e], y_RD[part], b2_ED[e])
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
        grad_hidden = _product(g, w2_EHD[e].T, torch.empty_like(hidden))
        _product(hidden.T, g, grad_w2_EHD[e])
        grad_weight_R[part] = _row_dot(grad_hidden, hidden)
        grad_pre = _activation_gradient(grad_hidden, pre_RF[part], activation)
        _product(x.T, grad_pre, grad_w1_EDF[e])
        torch.sum(grad_pre, 0, out=grad_b1_EF[e])
        _product(grad_pre, w1_EDF[e].T, grad_x_RD[part])
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


def _product(a_ND: Tensor, b_DF: Tensor, out_NF: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """Put a b, plus the bias, into `out_NF`, and return it."""
    if suits_onednn(a_ND, b_DF, bias_F):
        # It allocates its result, which is still in the cache when it is copied.
        return out_NF.copy_(onednn_linear(a_ND, b_DF.T, bias_F))
    if bias_F is None:
        return torch.mm(a_ND, b_DF, out=out_NF)
    return torch.addmm(bias_F, a_ND, b_DF, out=out_NF)


def _hidden(x_ND: Tensor, w1_DF: Tensor, b1_F: Tensor, activation: str) -> Tensor:
    """Return the rows after the activation where those before it are not kept."""
    if activation == "gelu" and suits_onednn(x_ND, w1_DF, b1_F, low_precision=True):
        return onednn_linear(x_ND, w1_DF.T, b1_F, gelu=True)
    pre = _product(x_ND, w1_DF, x_ND.new_empty(len(x_ND), w1_DF.shape[1]), b1_F)
    return _activate(pre, activation, None)


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
