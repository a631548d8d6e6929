"""Experts by definition: every expert computes every token, and the mask keeps what was asked for.

Legend: T tokens, E experts, D width, F width after the first map (2 H for swiglu), H hidden width.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, einsum
from torch.nn import functional as F


def activate(pre: Float[Tensor, "*rows pre"], activation: str) -> Float[Tensor, "*rows hidden"]:
    """Return gelu(x) in its tanh form, or for swiglu silu(a) b where x = [a, b]."""
    if activation == "gelu":
        return F.gelu(pre, approximate="tanh")
    a, b = pre.chunk(2, dim=-1)
    return F.silu(a) * b


def expert_ffn_naive(
    x_TD: Float[Tensor, "tokens dim"],
    weight_TE: Float[Tensor, "tokens experts"],
    mask_TE: Bool[Tensor, "tokens experts"],
    weights: tuple[Tensor, ...],
    activation: str,
) -> Float[Tensor, "tokens dim"]:
    """O(T E D F): sum_e mask_te weight_te FFN_e(x_t), differentiated by torch alone; `weights` are w1, b1, w2, b2."""
    w1_EDF, b1_EF, w2_EHD, b2_ED = weights
    pre_TEF = einsum("td,edf->tef", x_TD, w1_EDF) + b1_EF
    y_TED = einsum("teh,ehd->ted", activate(pre_TEF, activation), w2_EHD) + b2_ED
    return (y_TED * weight_TE.where(mask_TE, 0.0)[..., None]).sum(1).to(x_TD.dtype)
