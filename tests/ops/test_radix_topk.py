"""Radix selection against the stable sort of the definition, and its NaNs against torch's top-k."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from expert_cases import poison_allocations
from torch import Tensor
from triton_process import DEVICE, INTERPRETED, ON_GPU, needs_kernels, run_interpreted, starts_interpreter

from leandit.errors import LeanDiTError
from leandit.ops import pooled_topk
from leandit.ops.pooled_topk import pooled_topk_naive

INF, NAN = torch.inf, torch.nan
FLOAT = torch.finfo(torch.float32)
EXTREMES = [-INF, INF, FLOAT.max, -FLOAT.max, FLOAT.tiny, -FLOAT.tiny, 1e-45, -1e-45, 0.0, -0.0]


@starts_interpreter
def test_in_the_interpreter() -> None:
    run_interpreted(__file__)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def whole(*shape: int, bound: int = 2) -> Tensor:
    """Few values, many ties, and zeros of both signs."""
    generator = torch.Generator().manual_seed(0)
    sign = torch.randint(0, 2, shape, generator=generator) * 2.0 - 1
    return torch.randint(0, bound + 1, shape, generator=generator) * sign


# Interpreted blocks hold 32 scores, and a single row is divided among up to four programs.
CONTESTS = {
    "one program": (normal(3, 20), [0, 7, 20]),
    "a block and one more": (normal(2, 33), [1, 32]),
    "several programs": (normal(1, 300), [130]),
    "several programs for each row": (normal(2, 150), [75, 149]),
    "more rows than programs": (normal(6, 40), [0, 1, 20, 39, 40, 3]),
    "ties": (whole(3, 60), [5, 30, 59]),
    "ties over several programs": (whole(1, 300), [123]),
    "all tied": (torch.ones(2, 90), [40, 90]),
    "all zero, of both signs": (whole(1, 90, bound=0), [41]),
    "positive": (normal(1, 200).sigmoid(), [50]),
    "neighbouring numbers": (1 + torch.arange(64).flip(0)[None] * FLOAT.eps, [17]),
    "one score": (normal(2, 1), [0, 1]),
    "the largest and the smallest": (torch.tensor([EXTREMES] * 9), list(range(1, 10))),
}


def check(scores: Tensor, budget: Tensor) -> None:
    mask, cutoff = pooled_topk(scores, budget, impl="radix")
    expected_mask, expected_cutoff = pooled_topk_naive(scores, budget)
    assert torch.equal(mask, expected_mask)
    assert torch.equal(cutoff, expected_cutoff)
    assert cutoff.dtype == scores.dtype


@needs_kernels
@pytest.mark.parametrize(("scores", "budget"), CONTESTS.values(), ids=CONTESTS)
def test_agrees_with_the_definition(scores: Tensor, budget: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    poison_allocations(monkeypatch)
    check(scores.to(DEVICE), torch.tensor(budget, device=DEVICE))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    check(normal(2, 100).to(DEVICE, dtype), torch.tensor([30, 99], device=DEVICE))


@needs_kernels
def test_budgets_of_32_bits() -> None:
    check(normal(2, 40).to(DEVICE), torch.tensor([3, 17], dtype=torch.int32, device=DEVICE))


@needs_kernels
@pytest.mark.parametrize("step", [1, 2])
def test_a_non_contiguous_view_is_read_in_its_own_order(step: int) -> None:
    scores = whole(80, 4).to(DEVICE).T[:, ::step]
    assert not scores.is_contiguous()
    check(scores, torch.tensor([0, 11, 39, 40], device=DEVICE))


@needs_kernels
def test_nan_is_above_all_and_never_kept() -> None:
    rows = [[NAN, 1, 1, 1, 1], [NAN] * 5, [NAN, -NAN, 2, 3, INF], [1, NAN, 0, -NAN, 2], [NAN, 1, 1, 1, 0]]
    scores, budget = torch.tensor(rows, device=DEVICE), torch.tensor([3, 2, 3, 1, 0], device=DEVICE)
    mask, cutoff = pooled_topk(scores, budget, impl="radix")
    # Three places, one of which NaN takes: the cutoff is 1, and three scores reach it.
    assert mask[0].tolist() == [False, True, True, True, False]
    assert not mask[[1, 3, 4]].any()
    assert cutoff[[1, 3]].isnan().all()
    expected_mask, expected_cutoff = pooled_topk(scores, budget, impl="topk")
    assert torch.equal(mask, expected_mask)
    torch.testing.assert_close(cutoff, expected_cutoff, rtol=0, atol=0, equal_nan=True)


@needs_kernels
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_nothing_to_choose_from(shape: tuple[int, int]) -> None:
    budget = torch.zeros(shape[0], dtype=torch.int64, device=DEVICE)
    mask, cutoff = pooled_topk(torch.empty(shape, device=DEVICE), budget, impl="radix")
    assert mask.shape == shape
    assert cutoff.tolist() == [INF] * shape[0]


@needs_kernels
def test_a_budget_above_the_pool_keeps_the_pool() -> None:
    scores = normal(1, 40).to(DEVICE)
    mask, cutoff = pooled_topk(scores, torch.tensor([41], device=DEVICE), impl="radix")
    assert mask.all()
    assert cutoff == scores.min()


@needs_kernels
def test_compiled_equals_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiler cannot see through the checks of shapes.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    scores, budget = whole(40, 3).to(DEVICE).T, torch.tensor([5, 20, 0], device=DEVICE)
    compiled = torch.compile(pooled_topk, fullgraph=True, backend="aot_eager")
    for mine, expected in zip(compiled(scores, budget, "radix"), pooled_topk(scores, budget, "radix"), strict=True):
        assert torch.equal(mine, expected)


@needs_kernels
def test_float64_is_refused() -> None:
    with pytest.raises(LeanDiTError, match=r"float16, not torch\.float64"):
        pooled_topk(normal(1, 4).double().to(DEVICE), torch.tensor([1], device=DEVICE), impl="radix")


@pytest.mark.skipif(INTERPRETED or ON_GPU, reason="here it can run")
def test_without_a_gpu_it_is_refused() -> None:
    with pytest.raises(LeanDiTError, match=r"runs on CUDA, not on cpu|needs Triton"):
        pooled_topk(normal(1, 4), torch.tensor([1]), impl="radix")


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
@pytest.mark.parametrize("shape", [(1, 2**21), (1, 2**24), (5, 2**17 + 3), (700, 2**14)])
@pytest.mark.parametrize("ties", [False, True])
def test_long_rows_and_nothing_waits(shape: tuple[int, int], ties: bool) -> None:
    scores = (whole(*shape, bound=999) if ties else normal(*shape)).to(DEVICE)
    budget = torch.randint(0, shape[1], shape[:1], generator=torch.Generator().manual_seed(1)).to(DEVICE)
    for mode in ("default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            mask, cutoff = pooled_topk(scores, budget)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    expected_mask, expected_cutoff = pooled_topk_naive(scores, budget)
    assert torch.equal(mask, expected_mask)
    assert torch.equal(cutoff, expected_cutoff)
