"""Exact top-k per row: against the stable sort of the reference and against plain Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leandit.ops.pooled_topk import pooled_topk, pooled_topk_naive


def kept(scores: Tensor, budget: list[int]) -> list[set[int]]:
    """The positions to keep in each row, by sorting (score, position) pairs in Python."""
    rows = []
    for row, count in zip(scores.tolist(), budget, strict=True):
        order = sorted(range(len(row)), key=lambda i: (-row[i], i))
        rows.append(set(order[:count]))
    return rows


def positions(mask: Tensor) -> list[set[int]]:
    return [set(row.nonzero()[:, 0].tolist()) for row in mask]


@st.composite
def contests(draw: st.DrawFn) -> tuple[Tensor, list[int]]:
    rows, pool = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    values = st.lists(st.integers(-2, 2), min_size=pool, max_size=pool)
    scores = torch.tensor(draw(st.lists(values, min_size=rows, max_size=rows)), dtype=torch.float64)
    return scores, draw(st.lists(st.integers(0, pool), min_size=rows, max_size=rows))


IMPLS = ("auto", "naive", "topk", "partition")


@pytest.mark.parametrize("impl", IMPLS)
@settings(max_examples=100, deadline=None)
@given(contest=contests())
def test_ties_go_to_the_earlier_position(contest: tuple[Tensor, list[int]], impl: str) -> None:
    scores, budget = contest
    mask, cutoff = pooled_topk(scores, torch.tensor(budget), impl=impl)
    assert positions(mask) == kept(scores, budget)
    expected = [
        min((row[i] for i in chosen), default=float("inf"))
        for row, chosen in zip(scores.tolist(), kept(scores, budget), strict=True)
    ]
    assert cutoff.tolist() == expected


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_agrees_with_the_definition(dtype: torch.dtype, impl: str) -> None:
    scores = torch.randn(7, 33, generator=torch.Generator().manual_seed(0)).to(dtype)
    budget = torch.tensor([0, 1, 2, 16, 31, 32, 33])
    mask, cutoff = pooled_topk(scores, budget, impl=impl)
    expected_mask, expected_cutoff = pooled_topk_naive(scores, budget)
    assert torch.equal(mask, expected_mask)
    assert torch.equal(cutoff, expected_cutoff)
    assert mask.sum(1).tolist() == budget.tolist()


def test_a_non_contiguous_view_is_read_in_its_own_order() -> None:
    scores = torch.randn(9, 4, generator=torch.Generator().manual_seed(1)).T
    assert not scores.is_contiguous()
    budget = torch.tensor([3, 1, 9, 0])
    assert torch.equal(pooled_topk(scores, budget)[0], pooled_topk(scores.contiguous(), budget)[0])


def test_no_budget_keeps_nothing() -> None:
    mask, cutoff = pooled_topk(torch.randn(2, 3), torch.tensor([0, 0]))
    assert not mask.any()
    assert cutoff.tolist() == [float("inf")] * 2


def test_infinite_scores_are_ordinary_scores() -> None:
    scores = torch.tensor([[-torch.inf, torch.inf, -torch.inf, 0.0]])
    assert positions(pooled_topk(scores, torch.tensor([3]))[0]) == [{0, 1, 3}]


def test_a_row_of_nan_keeps_nothing_and_leaves_the_others_alone() -> None:
    scores = torch.tensor([[torch.nan] * 3, [1.0, 3.0, 2.0]])
    mask, cutoff = pooled_topk(scores, torch.tensor([2, 2]))
    assert positions(mask) == [set(), {1, 2}]
    assert cutoff[0].isnan()
    assert cutoff[1] == 2.0


@pytest.mark.parametrize("impl", ["topk", "partition"])
def test_a_known_largest_budget_changes_nothing(impl: str) -> None:
    scores = torch.randn(5, 40, generator=torch.Generator().manual_seed(3))
    for budgets in ([0, 0, 0, 0, 0], [1, 0, 3, 2, 3], [40, 7, 0, 39, 12]):
        budget = torch.tensor(budgets)
        expected = pooled_topk(scores, budget, impl)  # type: ignore[arg-type]
        for largest in (max(budgets), 40, 45):
            found = pooled_topk(scores, budget, impl, largest)  # type: ignore[arg-type]
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])


def test_nothing_is_read_from_the_device_if_the_largest_budget_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, budget = torch.randn(6, 30), torch.tensor([4, 4, 5, 5, 4, 4])
    read: list[str] = []
    for name in ("item", "tolist", "nonzero", "__int__", "__bool__", "__float__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, *a, _o=original, _n=name, **k: (read.append(_n), _o(self, *a, **k))[1]
        )
    pooled_topk(scores, budget, "topk", 5)
    assert read == []
    pooled_topk(scores, budget, "topk")
    assert read != []
