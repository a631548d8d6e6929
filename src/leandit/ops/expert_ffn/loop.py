"""The backend for CPUs: one expert after the other, in chunks of rows that stay in the cache.

Tokens are gathered before the first product and summed after the second. So the backward pass needs neither a copy of
the input per pair nor an output per pair. It needs the same as a dense feed-forward of that many rows: the rows before
and after the activation.

The number of rows per expert changes with every step. Chunks limit the number of different sizes of the products; the
matrix library compiles a kernel for each size. Chunks also make memory requests repeat: if the heap cannot reuse a
block it grows, and clearing a new page takes longer than computing its contents.

Legend: T tokens, E experts, R rows (see `layout`), D width, F width after the first map, H hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from leandit.ops.expert_ffn.layout import Layout, combine, layout, weight_gradients
from leandit.ops.onednn import onednn_linear, suits_onednn

_gelu = torch.ops.aten.gelu.out
_gelu_backward = torch.ops.aten.gelu_backward
# Rows of a chunk. Fewer rows make products slower; more rows do not make them faster.
CHUNK = 2048
# Replaces weights near 0 in a division. It is too small to change results, and its products are normal numbers.
_TINY = 1e-18


def forward(
    x_TD: Float[Tensor, "tokens dim"],
    weight_TE: Float[Tensor, "tokens experts"],
    mask_TE: Bool[Tensor, "tokens experts"],
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    activation: str,
    num_rows: int | None,
    block: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output and the rows before and after the activation; these have 0 rows unless `keep`."""
    w1_EDF, b1_EF, w2_EHD, b2_ED = weights
    plan = layout(weight_TE, mask_TE, block=block)
    rows, dim = num_rows if keep and num_rows is not None else len(plan.token), x_TD.shape[1]
    kept = rows if keep else 0
    pre_RF, hidden_RH = x_TD.new_empty(kept, w1_EDF.shape[2]), x_TD.new_empty(kept, w2_EHD.shape[1])
    y_RD, x_ND = x_TD.new_empty(rows, dim), x_TD.new_empty(min(CHUNK, rows), dim)
    for e, chunks in enumerate(_chunks(plan)):
        for chunk in chunks:
            x = _gather(x_TD, plan.token[chunk], x_ND)
            if keep:
                pre = _product(x, w1_EDF[e], b1_EF[e], pre_RF[chunk])
                hidden = _activate(pre, activation, hidden_RH[chunk])
            else:
                hidden = _hidden(x, w1_EDF[e], b1_EF[e], activation)
            _product(hidden, w2_EHD[e], b2_ED[e], y_RD[chunk])
    return combine(y_RD, plan, True, x_TD.shape[0]), pre_RF, hidden_RH


def backward(
    grad_TD: Float[Tensor, "tokens dim"],
    x_TD: Float[Tensor, "tokens dim"],
    weight_TE: Float[Tensor, "tokens experts"],
    mask_TE: Bool[Tensor, "tokens experts"],
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    kept: tuple[Tensor, Tensor],
    activation: str,
    block: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight_TE, w1, b1, w2 and b2.

    Let g be the gradient of the output, w the weight of a pair and a its hidden row. The gradient of w is
    <g, a W2 + b2> = <w g W2ᵀ, a> / w + <g, b2>, which needs neither the expert's output nor g W2ᵀ without w.
    """
    w1_EDF, b1_EF, w2_EHD, b2_ED = weights
    pre_RF, hidden_RH = kept
    plan = layout(torch.where(weight_TE.abs() < _TINY, _TINY, weight_TE), mask_TE, block=block)
    weight_R1 = plan.weight.to(x_TD.dtype)[:, None]
    grad_x_RD, grad_weight_R = x_TD.new_empty(len(pre_RF), x_TD.shape[1]), weight_TE.new_empty(len(plan.token))
    grad_w1_EDF, grad_w2_EHD = torch.empty_like(w1_EDF), torch.empty_like(w2_EHD)
    grad_b1_EF = torch.zeros_like(b1_EF, dtype=_at_least_float32(b1_EF.dtype))
    x_ND, g_ND = (x_TD.new_empty(min(CHUNK, len(pre_RF)), x_TD.shape[1]) for _ in range(2))
    for e, chunks in enumerate(_chunks(plan)):
        alone = len(chunks) == 1
        grad_w1, grad_w2 = (_target(grad[e], len(chunks)) for grad in (grad_w1_EDF, grad_w2_EHD))
        for chunk in chunks:
            x, hidden = _gather(x_TD, plan.token[chunk], x_ND), hidden_RH[chunk]
            g = _gather(grad_TD, plan.token[chunk], g_ND).mul_(weight_R1[chunk])
            grad_hidden = _product(g, w2_EHD[e].T)
            _add_product(grad_w2, hidden.T, g, alone)
            grad_weight_R[chunk] = (grad_hidden * hidden).sum(1, dtype=_at_least_float32(hidden.dtype))
            grad_pre = _activation_gradient(grad_hidden, pre_RF[chunk], activation)
            _add_product(grad_w1, x.T, grad_pre, alone)
            grad_b1_EF[e] += grad_pre.sum(0, dtype=grad_b1_EF.dtype)
            _product(grad_pre, w1_EDF[e].T, out_NF=grad_x_RD[chunk])
        if len(chunks) > 1:
            grad_w1_EDF[e], grad_w2_EHD[e] = grad_w1, grad_w2
    hidden_P = grad_weight_R[plan.row] / plan.pair_weight
    grad_weight_TE, grad_b2_ED = weight_gradients(grad_TD, hidden_P, weight_TE, mask_TE, b2_ED)
    return (
        combine(grad_x_RD, plan, False, x_TD.shape[0]),
        grad_weight_TE,
        grad_w1_EDF,
        grad_b1_EF.to(b1_EF.dtype),
        grad_w2_EHD,
        grad_b2_ED,
    )


def _chunks(plan: Layout) -> Iterator[list[slice]]:
    """Yield the rows of each expert, in slices of at most CHUNK rows."""
    start = 0
    for end in plan.ends.tolist():
        yield [slice(first, min(first + CHUNK, end)) for first in range(start, end, CHUNK)]
        start = end


def _gather(x_TD: Tensor, token_N: Tensor, out_ND: Tensor) -> Tensor:
    """Copy the rows of these tokens to `out_ND` and return them."""
    return torch.index_select(x_TD, 0, token_N, out=out_ND[: len(token_N)])


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _target(grad: Tensor, num_chunks: int) -> Tensor:
    """Return the tensor for an expert's products: zeros to add to, or the gradient itself if one chunk is enough."""
    if num_chunks > 1:
        return torch.zeros_like(grad, dtype=_at_least_float32(grad.dtype))
    return grad if num_chunks else grad.zero_()


def _add_product(total: Tensor, a: Tensor, b: Tensor, alone: bool) -> None:
    """Add a b to the total, or write it there if it is the only product."""
    if alone:
        _product(a, b, out_NF=total)
    else:
        total += _product(a, b)


def _product(a_ND: Tensor, b_DF: Tensor, bias_F: Tensor | None = None, out_NF: Tensor | None = None) -> Tensor:
    """Return a b, plus the bias, written to `out_NF` if it is given."""
    if suits_onednn(a_ND, b_DF, bias_F):
        # oneDNN allocates its result; the copy is cheap because the result is still in the cache.
        result = onednn_linear(a_ND, b_DF.T, bias_F)
        return result if out_NF is None else out_NF.copy_(result)
    if bias_F is None:
        return torch.mm(a_ND, b_DF, out=out_NF)
    return torch.addmm(bias_F, a_ND, b_DF, out=out_NF)


def _hidden(x_ND: Tensor, w1_DF: Tensor, b1_F: Tensor, activation: str) -> Tensor:
    """Return the rows after the activation, for a forward pass that does not keep the rows before it."""
    if activation == "gelu" and suits_onednn(x_ND, w1_DF, b1_F, low_precision=True):
        return onednn_linear(x_ND, w1_DF.T, b1_F, gelu=True)
    pre = _product(x_ND, w1_DF, b1_F)
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
