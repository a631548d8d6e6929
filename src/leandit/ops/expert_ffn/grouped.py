"""The backend by torch's grouped product, for a GPU without Triton. Torch differentiates it.

It writes the rows of all pairs to memory before, between and after its two products, and autograd keeps them for the
backward pass.

Legend: T tokens, E experts, R rows (see `layout`), D width, F width after the first map (2 H for swiglu), H hidden
width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from leandit.ops.expert_ffn import activate, definition
from leandit.ops.expert_ffn.layout import layout
from leandit.ops.expert_ffn.operator import max_rows

# torch's grouped product needs rows that start at multiples of this number of bytes.
_ALIGNMENT = 16


def compute(
    x_TD: Float[Tensor, "tokens dim"],
    weight_TE: Float[Tensor, "tokens experts"],
    mask_TE: Bool[Tensor, "tokens experts"],
    weights: Sequence[Tensor],
    activation: str,
    num_pairs: int,
) -> Float[Tensor, "tokens dim"]:
    """sum_e mask_te weight_te FFN_e(x_t) by two grouped products in bfloat16, float32 or float16.

    Only bfloat16 works under torch.compile. The sum over a token's experts is fp32; on a GPU the order of its terms is
    not fixed.
    """
    w1_EDF, b1_EF, w2_EHD, b2_ED = weights
    if not x_TD.numel() or not w2_EHD.numel():
        return definition(x_TD, weight_TE, mask_TE, weights, activation)
    plan = layout(weight_TE, mask_TE, max_rows(num_pairs, len(w1_EDF)))
    # Rows after the end of the last expert are padding, like the rows between experts; the last expert computes them.
    ends_E = torch.cat([plan.ends[:-1], plan.ends.new_full((1,), len(plan.token))]).to(torch.int32)
    hidden_RH = activate(_product(x_TD.index_select(0, plan.token), w1_EDF, b1_EF, ends_E), activation)
    y_RD = _product(hidden_RH, w2_EHD, b2_ED, ends_E).float() * plan.weight[:, None].float()
    return y_RD.new_zeros(x_TD.shape).index_add(0, plan.token, y_RD).to(x_TD.dtype)


def _product(
    a_RK: Float[Tensor, "rows k"],
    b_EKN: Float[Tensor, "experts k n"],
    bias_EN: Float[Tensor, "experts n"],
    ends_E: Int[Tensor, " experts"],
) -> Float[Tensor, "rows n"]:
    """Return A[r] B[e] + bias[e] for every row r and its expert e. Widths are padded to torch's alignment."""
    k, n = (-size % (_ALIGNMENT // a_RK.element_size()) for size in b_EKN.shape[1:])
    product_RN = F.grouped_mm(F.pad(a_RK, (0, k)), F.pad(b_EKN, (0, n, 0, k)), offs=ends_E)
    expert_R = torch.searchsorted(ends_E, torch.arange(len(a_RK), device=ends_E.device), right=True)
    return product_RN[:, : b_EKN.shape[2]] + bias_EN.index_select(0, expert_R)
