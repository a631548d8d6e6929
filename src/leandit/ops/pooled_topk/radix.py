"""Radix selection on a GPU: five or six reads of the scores, no sort, and no wait for the device.

Legend: R rows, P scores of a row, S steps: the digits of a key.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from triton import cdiv

from leandit.ops.pooled_topk import kernels

# Scores per block, and the most programs if there are few rows: about four per multiprocessor.
_BLOCK = 32 if kernels.INTERPRETED else 8192
_PROGRAMS = 4 if kernels.INTERPRETED else 512
_WARPS = 8


def pooled_topk_radix(
    scores_RP: Float[Tensor, "rows pool"], budget_R: Int[Tensor, " rows"]
) -> tuple[Bool[Tensor, "rows pool"], Float[Tensor, " rows"]]:
    """See `pooled_topk`. Takes float32, bfloat16 or float16, and rows of fewer than 2^31 scores.

    A budget above the size of the row selects all scores.
    """
    rows, pool = scores_RP.shape
    mask_RP = torch.empty_like(scores_RP, dtype=torch.bool)
    cutoff_R = scores_RP.new_full((rows,), torch.inf)
    if not mask_RP.numel():
        return mask_RP, cutoff_R
    budget_R = budget_R.to(scores_RP.device, torch.int64)
    blocks = cdiv(pool, _BLOCK)
    span = cdiv(blocks, max(1, min(blocks, _PROGRAMS // rows))) * _BLOCK
    parts = cdiv(pool, span)
    source = (scores_RP, scores_RP.stride(), pool, span)
    key_R, quota_R = torch.empty_like(budget_R), torch.empty_like(budget_R)
    ties_RN = scores_RP.new_empty(rows, parts, dtype=torch.int32)
    with torch.cuda.device_of(scores_RP):
        last, nans_R = _count(source, parts, budget_R.clamp(max=pool))
        kernels.count_ties[(rows, parts)](
            *source, *last, budget_R, nans_R, cutoff_R, key_R, quota_R, ties_RN, parts, BLOCK=_BLOCK, num_warps=_WARPS
        )
        kernels.write_mask[(rows, parts)](
            *source,
            key_R,
            quota_R,
            ties_RN,
            parts,
            mask_RP,
            mask_RP.stride(),
            MAX_PARTS=_PROGRAMS,
            BLOCK=_BLOCK,
            num_warps=_WARPS,
        )
    return mask_RP, cutoff_R


_Source = tuple[Tensor, tuple[int, ...], int, int]


def _count(source: _Source, parts: int, budget_R: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Return the counts of the last digit with their prefix and rank, and the number of NaNs of each row."""
    rows = len(budget_R)
    counts_SRV = budget_R.new_zeros(4, rows, 256, dtype=torch.int32)
    prefix_SR, left_SR = budget_R.new_zeros(4, rows), budget_R.expand(4, rows).contiguous()
    nans_R = budget_R.new_zeros(rows)
    last: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)
    for step, here in enumerate(zip(counts_SRV, prefix_SR, left_SR, strict=True)):
        kernels.count_digits[(rows, parts)](
            *source, *last, *here, nans_R, SHIFT=24 - 8 * step, BLOCK=_BLOCK, num_warps=_WARPS
        )
        last = here
    return here, nans_R
