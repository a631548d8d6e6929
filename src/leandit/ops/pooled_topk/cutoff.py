"""The smallest score to keep in each row, found without sorting the row.

Legend: R rows, P scores competing in a row.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def cutoff_by_topk(scores_RP: Float[Tensor, "rows pool"], budget_R: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """torch.topk of the largest budget: good for short rows, of which it takes many at once."""
    top_RK = scores_RP.topk(int(budget_R.max()), dim=1).values
    return top_RK.gather(1, (budget_R - 1).clamp(min=0)[:, None])[:, 0]


def cutoff_by_partition(
    scores_RP: Float[Tensor, "rows pool"], budget_R: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """numpy's vectorised quickselect: about one read of the data, where a sorted top-k takes many."""
    half = scores_RP.dtype in (torch.bfloat16, torch.float16)
    scores = (scores_RP.float() if half else scores_RP).numpy()
    budgets = budget_R.clamp(min=1).numpy()
    places = scores.shape[1] - budgets
    ordered = np.partition(scores, sorted(set(places.tolist())), axis=1)
    return torch.from_numpy(ordered[np.arange(len(places)), places]).to(scores_RP.dtype)


def keep(
    scores_RP: Float[Tensor, "rows pool"], budget_R: Int[Tensor, " rows"], cutoff_R: Float[Tensor, " rows"]
) -> Bool[Tensor, "rows pool"]:
    """Return the mask of the scores above the cutoff, and of the first that tie with it up to the budget.

    Nothing is kept in a row whose cutoff is NaN.
    """
    above_RP, tie_RP = scores_RP > cutoff_R[:, None], scores_RP == cutoff_R[:, None]
    room_R = budget_R - above_RP.sum(1)
    return above_RP | tie_RP & (tie_RP.cumsum(1) <= room_R[:, None])
