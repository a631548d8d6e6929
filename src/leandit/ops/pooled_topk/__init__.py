"""Select the k largest scores of each row: exactly k, even if scores are tied.

Legend: R rows, each an independent competition; P scores of a row, its pool.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.ops.backends import load, log_choice, require_triton, suits_triton

TopkImpl = Literal["auto", "naive", "topk", "partition", "radix"]

# Smallest pool for which one quickselect per row is faster than torch's top-k of all rows.
_PARTITION_MIN_POOL = 1024
# Smallest pool for which `auto` uses radix selection on a GPU. This is a guess; it has not been measured.
_RADIX_MIN_POOL = 2**14


def pooled_topk(
    scores_RP: Float[Tensor, "rows pool"],
    budget_R: Int[Tensor, " rows"],
    impl: TopkImpl = "auto",
    largest: int | None = None,
) -> tuple[Bool[Tensor, "rows pool"], Float[Tensor, " rows"]]:
    """Return the mask of the `budget_R[r]` largest scores of each row r, and each row's smallest selected score.

    If scores are tied at the cutoff, the first ones are selected, so the count is exact and the result deterministic. A
    row with budget 0 selects nothing and has cutoff +inf. A row whose cutoff is NaN selects nothing.

    `impl`: `naive` sorts, `topk` is torch.topk, `partition` is numpy's quickselect on a CPU, `radix` is a radix
    selection in Triton for CUDA with 32-bit keys. `auto` is partition or radix for long rows, else topk. Pass an upper
    bound on the budgets as `largest` if you know one: then nothing waits for a GPU. Raises LeanDiTError if the named
    implementation cannot run. torch.compile sees one operator. It has no gradient.
    """
    if impl not in ("auto", "naive", "topk", "partition", "radix"):
        raise LeanDiTError(f"impl = {impl!r}: choose auto, naive, topk, partition or radix")
    if impl == "partition" and scores_RP.device.type != "cpu":
        raise LeanDiTError(f"impl = 'partition' runs on the CPU, not on {scores_RP.device}: choose auto or topk")
    return torch.ops.leandit.pooled_topk(scores_RP.detach(), budget_R, impl, -1 if largest is None else largest)


_SCHEMA = "(Tensor scores, Tensor budget, str impl, SymInt largest) -> (Tensor, Tensor)"


@torch.library.custom_op("leandit::pooled_topk", mutates_args=(), schema=_SCHEMA)
def _pooled_topk(scores_RP: Tensor, budget_R: Tensor, impl: str, largest: int) -> tuple[Tensor, Tensor]:
    if impl == "auto":
        device, pool = scores_RP.device.type, scores_RP.shape[1]
        if device == "cpu" and pool >= _PARTITION_MIN_POOL:
            impl = "partition"
        else:
            impl = "radix" if pool >= _RADIX_MIN_POOL and suits_triton(device, scores_RP.dtype) else "topk"
        log_choice("pooled_topk", device, impl)
    elif impl == "radix":
        require_triton("pooled_topk", impl, scores_RP.device.type, scores_RP.dtype)
    if impl == "naive":
        return pooled_topk_naive(scores_RP, budget_R)
    if impl == "radix":
        return load("leandit.ops.pooled_topk.radix").pooled_topk_radix(scores_RP, budget_R)
    if scores_RP.numel() and largest < 0:
        largest = int(budget_R.max())
    if not scores_RP.numel() or not largest:
        return torch.zeros_like(scores_RP, dtype=torch.bool), scores_RP.new_full(budget_R.shape, torch.inf)
    if impl == "partition":
        found_R = load("leandit.ops.pooled_topk.partition").cutoff(scores_RP, budget_R)
    else:
        top_RK = scores_RP.topk(min(largest, scores_RP.shape[1]), dim=1).values
        found_R = top_RK.gather(1, (budget_R - 1).clamp(min=0)[:, None])[:, 0]
    cutoff_R = torch.where(budget_R > 0, found_R, torch.inf)
    # The scores above the cutoff, and of those equal to it the first ones, up to the budget.
    above_RP, tie_RP = scores_RP > cutoff_R[:, None], scores_RP == cutoff_R[:, None]
    room_R = budget_R - above_RP.sum(1)
    return above_RP | tie_RP & (tie_RP.cumsum(1) <= room_R[:, None]), cutoff_R


@_pooled_topk.register_fake
def _(scores_RP: Tensor, budget_R: Tensor, impl: str, largest: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(scores_RP, dtype=torch.bool), scores_RP.new_empty(budget_R.shape)


def pooled_topk_naive(
    scores_RP: Float[Tensor, "rows pool"], budget_R: Int[Tensor, " rows"]
) -> tuple[Bool[Tensor, "rows pool"], Float[Tensor, " rows"]]:
    """The definition: sort each row (stable) and select its first `budget_R[r]` scores. NaN is not allowed."""
    mask_RP = torch.zeros_like(scores_RP, dtype=torch.bool)
    cutoff_R = torch.full_like(scores_RP[:, 0], torch.inf)
    for row, budget in enumerate(budget_R.tolist()):
        order = scores_RP[row].sort(descending=True, stable=True).indices[:budget]
        mask_RP[row, order] = True
        if budget:
            cutoff_R[row] = scores_RP[row, order[-1]]
    return mask_RP, cutoff_R
