"""Keep exactly so many of the best scores in each row, ties included.

Legend: R rows, each an independent competition; P scores competing in a row.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def pooled_topk(
    scores_RP: Float[Tensor, "rows pool"], budget_R: Int[Tensor, " rows"]
) -> tuple[Bool[Tensor, "rows pool"], Float[Tensor, " rows"]]:
    """Return the mask of the `budget_R[r]` largest scores of each row r, and each row's smallest kept score.

    Of scores tied at the cutoff the ones that come first are kept, so the count is exact and the choice
    deterministic. A row with budget 0 keeps nothing and has cutoff +inf. Nothing is kept in a row whose cutoff is
    NaN.
    """
    largest = int(budget_R.max())
    if largest == 0:
        return torch.zeros_like(scores_RP, dtype=torch.bool), scores_RP.new_full(budget_R.shape, torch.inf)
    top_RK = scores_RP.topk(largest, dim=1).values
    cutoff_R = top_RK.gather(1, (budget_R - 1).clamp(min=0)[:, None])[:, 0]
    cutoff_R = torch.where(budget_R > 0, cutoff_R, torch.inf)
    above_RP = scores_RP > cutoff_R[:, None]
    tied_RP = scores_RP == cutoff_R[:, None]
    missing_R1 = (budget_R - above_RP.sum(1))[:, None]
    first_tied_RP = tied_RP & (tied_RP.cumsum(1) <= missing_R1)
    return above_RP | first_tied_RP, cutoff_R


def pooled_topk_reference(
    scores_RP: Tensor, budget_R: Tensor
) -> tuple[Bool[Tensor, "rows pool"], Float[Tensor, " rows"]]:
    """The same by a stable sort of each row."""
    mask_RP = torch.zeros_like(scores_RP, dtype=torch.bool)
    cutoff_R = torch.full_like(scores_RP[:, 0], torch.inf)
    for row, budget in enumerate(budget_R.tolist()):
        order = scores_RP[row].sort(descending=True, stable=True).indices[:budget]
        mask_RP[row, order] = True
        if budget:
            cutoff_R[row] = scores_RP[row, order[-1]]
    return mask_RP, cutoff_R
