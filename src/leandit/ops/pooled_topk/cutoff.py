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
    """Return the mask of the scores that reach the cutoff, without the last of those that tie with it beyond budget."""
    mask_RP = scores_RP >= cutoff_R[:, None]
    excess_R = mask_RP.sum(1) - budget_R
    for row in (excess_R > 0).nonzero()[:, 0].tolist():
        tied = (scores_RP[row] == cutoff_R[row]).nonzero()[:, 0]
        mask_RP[row, tied[len(tied) - int(excess_R[row]) :]] = False
    return mask_RP
