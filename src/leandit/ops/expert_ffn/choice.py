"""Which backend computes the experts, and in blocks of how many rows."""

from __future__ import annotations

from typing import Literal

import torch

from leandit.errors import LeanDiTError
from leandit.ops.expert_ffn.layout import BLOCK
from leandit.ops.triton_support import interpreted, log_choice, require_triton, suits_triton

ExpertImpl = Literal["auto", "naive", "loop", "grouped_mm", "triton"]

_GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


# It has no tensors and answers the same every time: torch.compile need not look inside.
@torch.compiler.assume_constant_result
def choose(impl: str, device: str, dtype: torch.dtype) -> str:
    """Return the backend for products in `dtype` on a device of this type.

    Raises LeanDiTError for one that is unknown or cannot run here: what was named is never replaced.
    """
    if impl == "auto":
        chosen = _best(device, dtype)
        log_choice("expert_ffn", device, chosen)
        return chosen
    if impl not in ("naive", "loop", "grouped_mm", "triton"):
        raise LeanDiTError(f"impl = {impl!r}: choose auto, naive, loop, grouped_mm or triton")
    if impl == "triton":
        require_triton("expert_ffn", impl, device, dtype)
        if dtype == torch.bfloat16 and interpreted():
            raise LeanDiTError("expert_ffn: Triton's interpreter multiplies no bfloat16: use float32 or float16")
    if impl == "grouped_mm" and dtype not in _GROUPED_DTYPES:
        raise LeanDiTError(
            f"expert_ffn: impl = 'grouped_mm' takes float32, bfloat16 and float16, not {dtype}: choose another impl"
        )
    return impl


def _best(device: str, dtype: torch.dtype) -> str:
    if suits_triton(device, dtype):
        return "triton"
    # In other dtypes torch's grouped product does not compile.
    return "grouped_mm" if device == "cuda" and dtype == torch.bfloat16 else "loop"


def block_size(chosen: str, device: str, num_pairs: int | None, num_experts: int) -> int:
    """Return how many rows a block has: on a GPU large ones make faster products, and pad experts more."""
    if chosen != "triton":
        return BLOCK
    if device != "cuda":
        return 16
    return 128 if num_pairs is not None and num_pairs >= 512 * num_experts else 64
