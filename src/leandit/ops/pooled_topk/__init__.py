"""Keep exactly so many of the best scores in each row, ties included.

Legend: R rows, each an independent competition; P scores competing in a row.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.ops.pooled_topk.cutoff import cutoff_by_partition, cutoff_by_topk, keep
from leandit.ops.pooled_topk.naive import pooled_topk_naive
from leandit.ops.triton_support import log_choice, require_triton, suits_triton

TopkImpl = Literal["auto", "naive", "topk", "partition", "radix"]

# From so many scores in a row on one quickselect after the other is faster than torch's top-k of all rows.
_PARTITION_MIN_POOL = 1024
# From so many on auto takes radix selection on a GPU: a guess, until it is measured there.
_RADIX_MIN_POOL = 2**14


def pooled_topk(
    scores_RP: Float[Tensor, "rows pool"], budget_R: Int[Tensor, " rows"], impl: TopkImpl = "auto"
) -> tuple[Bool[Tensor, "rows pool"], Float[Tensor, " rows"]]:
    """Return the mask of the `budget_R[r]` largest scores of each row r, and each row's smallest kept score.

    Of scores tied at the cutoff the ones that come first are kept, so the count is exact and the choice
    deterministic. A row with budget 0 keeps nothing and has cutoff +inf. Nothing is kept in a row whose cutoff is
    NaN. `impl`: `naive` sorts, `topk` is torch's, `partition` numpy's quickselect on the CPU, `radix` a radix
    selection for CUDA with Triton, to 32 bits; `auto` takes one of the latter two for long rows. Raises LeanDiTError
    where what was named cannot run. It is one operator to torch.compile, and has no gradient.
    """
    if impl not in ("auto", "naive", "topk", "partition", "radix"):
        raise LeanDiTError(f"impl = {impl!r}: choose auto, naive, topk, partition or radix")
    if impl == "partition" and scores_RP.device.type != "cpu":
        raise LeanDiTError(f"impl = 'partition' works on the CPU, not on {scores_RP.device}: choose auto or topk")
    return torch.ops.leandit.pooled_topk(scores_RP.detach(), budget_R, impl)


_SCHEMA = "(Tensor scores, Tensor budget, str impl) -> (Tensor, Tensor)"


@torch.library.custom_op("leandit::pooled_topk", mutates_args=(), schema=_SCHEMA)
def _pooled_topk(scores_RP: Tensor, budget_R: Tensor, impl: str) -> tuple[Tensor, Tensor]:
    if impl == "auto":
        impl = _best(scores_RP)
        log_choice("pooled_topk", scores_RP.device.type, impl)
    elif impl == "radix":
        require_triton("pooled_topk", impl, scores_RP.device.type, scores_RP.dtype)
    if impl == "naive":
        return pooled_topk_naive(scores_RP, budget_R)
    if impl == "radix":
        # Nobody else pays for importing Triton.
        from leandit.ops.pooled_topk.radix import pooled_topk_radix

        return pooled_topk_radix(scores_RP, budget_R)
    if not scores_RP.numel() or not int(budget_R.max()):
        return torch.zeros_like(scores_RP, dtype=torch.bool), scores_RP.new_full(budget_R.shape, torch.inf)
    find = cutoff_by_partition if impl == "partition" else cutoff_by_topk
    cutoff_R = torch.where(budget_R > 0, find(scores_RP, budget_R), torch.inf)
    return keep(scores_RP, budget_R, cutoff_R), cutoff_R


def _best(scores_RP: Tensor) -> str:
    device, pool = scores_RP.device.type, scores_RP.shape[1]
    if device == "cpu" and pool >= _PARTITION_MIN_POOL:
        return "partition"
    return "radix" if pool >= _RADIX_MIN_POOL and suits_triton(device, scores_RP.dtype) else "topk"


@_pooled_topk.register_fake
def _(scores_RP: Tensor, budget_R: Tensor, impl: str) -> tuple[Tensor, Tensor]:
    return torch.empty_like(scores_RP, dtype=torch.bool), scores_RP.new_empty(budget_R.shape)
