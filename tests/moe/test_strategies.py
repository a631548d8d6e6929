"""The six strategies against a slow loop, written from the table of pools and budgets in the Expert Race paper."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.moe import STRATEGIES, select_mask

Pair = tuple[int, int, int]

# The row that a pair (b, l, e) competes in, and the sample (or 0 for the batch) in which left-over pairs are shared.
ROW: dict[str, Callable[[int, int, int], tuple[int, ...]]] = {
    "token_choice": lambda b, l, e: (b, l),
    "expert_choice": lambda b, l, e: (b, e),
    "bl_choice": lambda b, l, e: (e,),
    "be_choice": lambda b, l, e: (l,),
    "le_choice": lambda b, l, e: (b,),
    "expert_race": lambda b, l, e: (),
}
SHARES_LEFT_OVERS_WITHIN_A_SAMPLE = ("token_choice", "expert_choice", "le_choice")


def rows_of(scores: np.ndarray, strategy: str) -> dict[tuple[int, ...], list[Pair]]:
    """Every row's pairs, best score first, earlier position first among equals."""
    rows: dict[tuple[int, ...], list[Pair]] = {}
    for b, l, e in np.ndindex(scores.shape):
        rows.setdefault(ROW[strategy](b, l, e), []).append((b, l, e))
    return {row: sorted(pairs, key=lambda pair: (-scores[pair], pair)) for row, pairs in sorted(rows.items())}


def loop(scores: np.ndarray, strategy: str, k: int) -> np.ndarray:
    batch, tokens, _ = scores.shape
    rows = rows_of(scores, strategy)
    floor = batch * tokens * k // len(rows)
    mask = np.zeros(scores.shape, bool)
    for pairs in rows.values():
        for pair in pairs[:floor]:
            mask[pair] = True
    within = strategy in SHARES_LEFT_OVERS_WITHIN_A_SAMPLE
    for group in range(batch if within else 1):
        members = [pairs for row, pairs in rows.items() if not within or row[0] == group]
        left = (tokens * k if within else batch * tokens * k) - floor * len(members)
        nexts = [pairs[floor] for pairs in members if len(pairs) > floor]
        for pair in sorted(nexts, key=lambda p: -scores[p])[:left]:
            mask[pair] = True
    return mask


def selected(scores: Tensor, strategy: str, k: int) -> np.ndarray:
    return select_mask(scores, strategy=strategy, k=k)[0].numpy()


SHAPES = [
    (1, 1, 1, 1),
    (2, 5, 3, 2),
    (3, 7, 5, 2),
    (2, 4, 4, 4),
    (3, 4, 1, 1),
    (1, 3, 8, 1),
    (4, 3, 7, 5),
    (2, 1, 6, 1),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_random_scores(strategy: str, shape: tuple[int, int, int, int], dtype: type) -> None:
    *dims, k = shape
    scores = np.random.default_rng(0).standard_normal(dims).astype(dtype)
    np.testing.assert_array_equal(selected(torch.from_numpy(scores), strategy, k), loop(scores, strategy, k))


@st.composite
def tied(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    levels, seed = draw(st.integers(1, 4)), draw(st.integers(0, 1000))
    scores = np.random.default_rng(seed).integers(0, levels, shape).astype(np.float64)
    return scores, draw(st.integers(1, shape[2]))


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=60, deadline=None)
@given(case=tied())
@example(case=(np.zeros((2, 3, 4)), 3))
def test_heavy_ties_and_exact_counts(strategy: str, case: tuple[np.ndarray, int]) -> None:
    scores, k = case
    batch, tokens, _ = scores.shape
    mask = selected(torch.from_numpy(scores), strategy, k)
    np.testing.assert_array_equal(mask, loop(scores, strategy, k))
    assert mask.sum() == batch * tokens * k
    rows = rows_of(scores, strategy)
    floor = batch * tokens * k // len(rows)
    assert {sum(int(mask[pair]) for pair in pairs) for pairs in rows.values()} <= {floor, floor + 1}


def test_expert_choice_keeps_the_left_over_pairs_within_the_sample() -> None:
    """The second sample has the best scores by far; the first still gets its own 7 pairs for 3 experts."""
    scores = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    scores[1] += 100
    mask = selected(scores, "expert_choice", 1)
    assert mask.sum((1, 2)).tolist() == [7, 7]
    np.testing.assert_array_equal(mask[:1], selected(scores[:1], "expert_choice", 1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_k_equal_to_the_number_of_experts_keeps_everything(strategy: str) -> None:
    assert selected(torch.randn(2, 5, 3), strategy, 3).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_non_contiguous_scores(strategy: str) -> None:
    scores = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(2)).permute(2, 1, 0)
    assert not scores.is_contiguous()
    np.testing.assert_array_equal(selected(scores, strategy, 2), loop(scores.numpy(), strategy, 2))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_cutoff_of_a_row_is_its_smallest_kept_score(strategy: str) -> None:
    scores = np.random.default_rng(3).standard_normal((3, 7, 5))
    mask, cutoff = select_mask(torch.from_numpy(scores), strategy=strategy, k=2)
    expected = [min(scores[p] for p in pairs if mask[p]) for pairs in rows_of(scores, strategy).values()]
    assert cutoff.tolist() == expected


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_empty_batch_selects_nothing(strategy: str) -> None:
    assert selected(torch.empty(0, 5, 4), strategy, 2).shape == (0, 5, 4)


def test_only_pools_over_the_batch_span_samples() -> None:
    spanning = {name for name, rule in STRATEGIES.items() if rule.spans_samples}
    assert spanning == {"bl_choice", "be_choice", "expert_race"}


def test_an_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(LeanDiTError, match="Did you mean 'expert_race'"):
        select_mask(torch.randn(1, 2, 3), strategy="expert_rase", k=1)


@pytest.mark.parametrize("k", [0, -1, 4])
def test_k_out_of_range(k: int) -> None:
    with pytest.raises(LeanDiTError, match="choose more than 0 and at most all, 3"):
        select_mask(torch.randn(1, 2, 3), strategy="token_choice", k=k)
