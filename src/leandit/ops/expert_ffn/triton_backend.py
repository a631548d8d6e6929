"""The Triton backend for GPUs: one launch per product for all experts, on rows sorted by expert.

Three kernels compute forward and backward, see `kernels`. The hidden row of a pair is multiplied by the pair's weight
w, so y_t is a plain sum of rows and the gradient of W2 is a plain product. Let g be the gradient of the output and
a = activation(pre). The gradient of w is <g W2ᵀ, a> + <g, b2>, and a is computed again from the kept `pre`.

So the kept `hidden` is w a; the `loop` backend keeps a. The host does not wait for the device if the number of rows is
known.

Legend: T tokens, E experts, R rows (see `layout`), D width, F width after the first map, H hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from triton import cdiv, next_power_of_2

from leandit.ops.expert_ffn.kernels import PART, rows_product, sum_rows, weight_gradient
from leandit.ops.expert_ffn.layout import Layout, layout, weight_gradients


@dataclass(frozen=True)
class _Rows:
    """A layout, the expert of each of its blocks (E for blocks after the last expert), and the size of a block."""

    plan: Layout
    expert: Int[Tensor, " blocks"]
    block: int

    @property
    def num(self) -> int:
        return len(self.plan.token)


def _rows(weight_TE: Tensor, mask_TE: Tensor, num_rows: int | None, block: int) -> _Rows:
    plan = layout(weight_TE, mask_TE, num_rows, block)
    starts = torch.arange(len(plan.token) // block, device=mask_TE.device) * block
    return _Rows(plan, torch.searchsorted(plan.ends, starts, right=True, out_int32=True), block)


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
    rows = _rows(weight_TE, mask_TE, num_rows, block)
    hidden_RH = x_TD.new_empty(rows.num, w2_EHD.shape[1])
    if activation == "gelu":
        pre_RF = x_TD.new_empty(rows.num if keep else 0, w1_EDF.shape[2])
        pre = pre_RF if keep else None
        _product(rows, x_TD, w1_EDF, hidden_RH, "gelu", gather=True, bias=b1_EF, scale=True, pre=pre)
    else:
        pre_RF = x_TD.new_empty(rows.num, w1_EDF.shape[2])
        _product(rows, x_TD, w1_EDF, pre_RF, "bias", gather=True, bias=b1_EF)
        a, b = pre_RF.chunk(2, dim=-1)
        hidden_RH.copy_(F.silu(a) * b * rows.plan.weight[:, None])
    y_RD = _product(rows, hidden_RH, w2_EHD, x_TD.new_empty(rows.num, x_TD.shape[1]), "bias", bias=b2_ED, scale=True)
    if not keep:
        pre_RF, hidden_RH = pre_RF.new_empty(0, pre_RF.shape[1]), hidden_RH.new_empty(0, hidden_RH.shape[1])
    return _combine(y_RD, rows), pre_RF, hidden_RH


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
    """Return the gradients of x, weight_TE, w1, b1, w2 and b2."""
    w1_EDF, _, w2_EHD, b2_ED = weights
    pre_RF, hidden_RH = kept
    rows = _rows(weight_TE, mask_TE, len(pre_RF), block)
    gradient = _gelu_gradient if activation == "gelu" else _swiglu_gradient
    grad_pre_RF, grad_weight_R = gradient(rows, grad_TD, w2_EHD, pre_RF)
    grad_x_RD = _product(rows, grad_pre_RF, w1_EDF.mT, x_TD.new_empty(rows.num, x_TD.shape[1]), "bias")
    grad_w1_EDF, grad_b1_EF = _weight_gradient(rows, (x_TD, True), (grad_pre_RF, False), w1_EDF, with_totals=True)
    grad_w2_EHD, _ = _weight_gradient(rows, (hidden_RH, False), (grad_TD, True), w2_EHD)
    hidden_P = grad_weight_R[rows.plan.row]
    grad_weight_TE, grad_b2_ED = weight_gradients(grad_TD, hidden_P, weight_TE, mask_TE, b2_ED)
    return _combine(grad_x_RD, rows), grad_weight_TE, grad_w1_EDF, grad_b1_EF, grad_w2_EHD, grad_b2_ED


def _gelu_gradient(rows: _Rows, grad_TD: Tensor, w2_EHD: Tensor, pre_RH: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the rows before the activation, and of the rows' weights without <g, b2>."""
    grad_pre_RH = torch.empty_like(pre_RH)
    partial_R = pre_RH.new_empty(cdiv(pre_RH.shape[1], PART), rows.num, dtype=torch.float32)
    _product(
        rows, grad_TD, w2_EHD.mT, grad_pre_RH, "gelu_gradient", gather=True, scale=True, pre=pre_RH, partial=partial_R
    )
    return grad_pre_RH, partial_R.sum(0)


def _swiglu_gradient(rows: _Rows, grad_TD: Tensor, w2_EHD: Tensor, pre_RF: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same as `_gelu_gradient`, for swiglu."""
    grad_RH = _product(rows, grad_TD, w2_EHD.mT, pre_RF.new_empty(rows.num, w2_EHD.shape[1]), "bias", gather=True)
    a, b = pre_RF.chunk(2, dim=-1)
    sigmoid = torch.sigmoid(a)
    silu = a * sigmoid
    slopes_RF = torch.cat([b * (sigmoid + silu * (1 - sigmoid)), silu], dim=-1)
    grad_weight_R = (grad_RH * silu * b).sum(1, dtype=torch.float32)
    return (grad_RH.repeat(1, 2) * slopes_RF * rows.plan.weight[:, None]).to(pre_RF.dtype), grad_weight_R


def _precision() -> str:
    """Return the precision of fp32 products. It follows torch's setting: exact unless torch allows TF32."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def _product(
    rows: _Rows,
    a: Tensor,
    b: Tensor,
    out: Tensor,
    epilogue: str,
    *,
    gather: bool = False,
    bias: Tensor | None = None,
    scale: bool = False,
    pre: Tensor | None = None,
    partial: Tensor | None = None,
) -> Tensor:
    """Write A[r] B[e] to `out` for every row r and its expert e, and return `out`. `gather`: A[token[r]] B[e]."""
    if out.numel() and len(rows.expert):
        with torch.cuda.device_of(a):
            rows_product[lambda meta: (len(rows.expert) * cdiv(out.shape[1], meta["BLOCK_N"]),)](
                a,
                a.stride(),
                rows.plan.token if gather else None,
                b,
                b.stride(),
                None if bias is None else bias.contiguous(),
                rows.plan.weight if scale else None,
                pre,
                out,
                partial,
                rows.num,
                rows.expert,
                len(rows.plan.ends),
                K=a.shape[1],
                N=out.shape[1],
                PART=PART,
                PRECISION=_precision(),
                EPILOGUE=epilogue,
                BLOCK_M=rows.block,
            )
    return out


def _weight_gradient(
    rows: _Rows, a: tuple[Tensor, bool], b: tuple[Tensor, bool], weight: Tensor, *, with_totals: bool = False
) -> tuple[Tensor, Tensor]:
    """Return A[rows of e]ᵀ B[rows of e] for every expert e, and the sums of B's rows if `with_totals`.

    Each side comes with a flag: if it is True, the side has one row per token, and rows are gathered.
    """
    out, totals = torch.empty_like(weight), weight.new_zeros(weight.shape[::2])
    if out.numel():
        num_experts, m, n = out.shape
        (left, gather_left), (right, gather_right) = a, b
        with torch.cuda.device_of(out):
            weight_gradient[lambda meta: (num_experts * cdiv(m, meta["BLOCK_M"]) * cdiv(n, meta["BLOCK_N"]),)](
                left,
                left.stride(),
                rows.plan.token if gather_left else None,
                right,
                right.stride(),
                rows.plan.token if gather_right else None,
                out,
                out.stride(),
                totals if with_totals else None,
                rows.plan.ends,
                M=m,
                N=n,
                PRECISION=_precision(),
            )
    return out, totals


def _combine(y_RD: Tensor, rows: _Rows) -> Float[Tensor, "tokens dim"]:
    """Return the sum of each token's rows. It is 0 for a token without rows."""
    bag = rows.plan.bag
    out = y_RD.new_empty(len(bag) - 1, y_RD.shape[1])
    if out.numel():
        with torch.cuda.device_of(out):
            sum_rows[(len(out),)](y_RD, rows.plan.row, bag, out, N=out.shape[1], BLOCK_N=next_power_of_2(out.shape[1]))
    return out
