"""A linear map whose rows do not depend on how many rows are computed with them.

Matrix libraries switch to other summation orders for a handful of rows, so the same row comes out different by a
rounding error. A threshold router turns that error into another set of experts, and a sample would depend on the
batch that it was drawn in. With at least MIN_ROWS rows the common CPU libraries keep one order per row.

Legend: N rows, D input width, F output width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

MIN_ROWS = 16


def pad_rows(x_ND: Float[Tensor, "rows dim"]) -> Float[Tensor, "padded dim"]:
    """Append zero rows up to MIN_ROWS."""
    missing = MIN_ROWS - x_ND.shape[0]
    return F.pad(x_ND, (0, 0, 0, missing)) if missing > 0 else x_ND


def row_stable_linear(
    x_ND: Float[Tensor, "rows dim"], weight_FD: Float[Tensor, "out dim"], bias_F: Float[Tensor, " out"] | None
) -> Float[Tensor, "rows out"]:
    """Return x Wᵀ + b, each row independent of the number of rows (exact in fp32 with the common CPU libraries).

    While gradients are recorded nothing is padded: training has no need of it.
    """
    rows = x_ND.shape[0]
    if torch.is_grad_enabled() or rows >= MIN_ROWS or x_ND.device.type != "cpu":
        return F.linear(x_ND, weight_FD, bias_F)
    return F.linear(pad_rows(x_ND), weight_FD, bias_F)[:rows]
