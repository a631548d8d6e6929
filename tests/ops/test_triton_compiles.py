"""Every kernel compiles for Hopper, which takes no GPU: the interpreter accepts more than the language allows."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from triton_process import ON_GPU, start


@pytest.mark.skipif(ON_GPU or not find_spec("triton"), reason="the kernels run here, or Triton is not installed")
def test_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    start([sys.executable, __file__], TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")


class _Hopper:
    """What Triton asks of a driver before it compiles."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device


def _tensor(dtype: torch.dtype) -> Tensor:
    return torch.empty(1024, dtype=dtype)


def _compile_experts() -> None:
    from leandit.ops.expert_ffn.kernels import PART, rows_product, sum_rows, weight_gradient

    low, full, index, expert = (_tensor(d) for d in (torch.bfloat16, torch.float32, torch.int64, torch.int32))
    product = {"num_rows": 4096, "block_expert": expert, "num_experts": 32, "PART": PART, "PRECISION": "ieee"}
    sides = {"a": low, "token": index, "b": low, "out": low, "scale": full, **product}
    tile = {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64, "num_warps": 8}
    # Odd widths keep every mask, even ones fold them.
    for k, n in ((1152, 1152), (33, 35)):
        strides: dict[str, Any] = {"a_strides": (k, 1), "b_strides": (k * n, n, 1), "K": k, "N": n, "grid": (1,)}
        for epilogue, bias, pre, partial in (("bias", low, None, None), ("gelu", low, low, None)):
            _warm(rows_product, **sides, **strides, **tile, EPILOGUE=epilogue, bias=bias, pre=pre, partial=partial)
        _warm(rows_product, **sides, **strides, **tile, EPILOGUE="gelu_gradient", bias=None, pre=low, partial=full)
    sums = {"a": low, "a_strides": (1152, 1), "b": low, "b_strides": (1152, 1), "out": low, "ends": index}
    sums |= {"out_strides": (1152 * 1152, 1152, 1), "M": 1152, "N": 1152, "PRECISION": "ieee", "grid": (1,)}
    for a_token, b_token, totals in ((index, None, low), (None, index, None)):
        _warm(weight_gradient, **sums, **tile, a_token=a_token, b_token=b_token, totals=totals)
    sum_rows.warmup(low, index, index, low, N=1152, BLOCK_N=2048, grid=(1,))


def _warm(tuned: Any, **arguments: Any) -> None:
    """Compile one tile of a kernel instead of all that tuning tries."""
    tuned.fn.warmup(**arguments)


def _compile_selection() -> None:
    from leandit.ops.pooled_topk import kernels

    full, index, count = (_tensor(d) for d in (torch.float32, torch.int64, torch.int32))
    source, block = (full, (2**21, 1), 2**21, 8192), {"BLOCK": 8192, "num_warps": 8, "grid": (1, 1)}
    last = (count, index, index)
    kernels.count_digits.warmup(*source, None, None, None, *last, index, SHIFT=24, **block)
    kernels.count_digits.warmup(*source, *last, *last, index, SHIFT=16, **block)
    kernels.count_ties.warmup(*source, *last, index, index, full, index, index, count, 256, **block)
    mask = _tensor(torch.bool)
    kernels.write_mask.warmup(*source, index, index, count, 256, mask, (2**21, 1), MAX_PARTS=512, **block)


if __name__ == "__main__":
    from triton.runtime import driver

    driver.set_active(_Hopper())
    _compile_experts()
    _compile_selection()
