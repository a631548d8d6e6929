"""The selection by definition: a stable sort of each row.

Legend: R rows, P scores competing in a row.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def pooled_topk_naive(
    scores_RP: Float[Tensor, "rows pool"], budget_R: Int[Tensor, " rows"]
) -> tuple[Bool[Tensor, "rows pool"], Float[Tensor, " rows"]]:
    """Sort each row and keep the first `budget_R[r]`; no row may hold NaN."""
    mask_RP = torch.zeros_like(scores_RP, dtype=torch.bool)
    cutoff_R = torch.full_like(scores_RP[:, 0], torch.inf)
    for row, budget in enumerate(budget_R.tolist()):
        order = scores_RP[row].sort(descending=True, stable=True).indices[:budget]
        mask_RP[row, order] = True
        if budget:
            cutoff_R[row] = scores_RP[row, order[-1]]
    return mask_RP, cutoff_R
