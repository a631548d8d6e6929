"""Shares of work among experts against loops over every token."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from leandit.moe import combination_usage
from leandit.probing.balance import co_selection, combination_curve, cosines, grouped_load, lift, words_of


@pytest.fixture
def mask() -> np.ndarray:
    """Calls x pictures x tokens x experts; expert 3 is chosen seldom, expert 4 never."""
    return np.random.default_rng(0).random((3, 4, 5, 5)) < np.array([0.7, 0.5, 0.3, 0.1, 0.0])


def test_co_selection_counts_tokens_with_both(mask: np.ndarray) -> None:
    expected = np.zeros((5, 5), int)
    for token in mask.reshape(-1, 5):
        for one in range(5):
            for other in range(5):
                expected[one, other] += token[one] and token[other]
    assert np.array_equal(co_selection(mask), expected)


def test_the_curve_of_combinations(mask: np.ndarray) -> None:
    together = co_selection(mask)
    counts = sorted((together[pair] for pair in combinations(range(5), 2)), reverse=True)
    curve = combination_curve(together)
    # Ten pairs: every tenth point is a whole number of pairs.
    for number in range(11):
        assert curve[10 * number] == pytest.approx(sum(counts[:number]) / sum(counts))
    below = 10 * sum(sum(counts[: n + 1]) / sum(counts) < 0.95 for n in range(10))
    assert combination_usage(torch.from_numpy(together).float()) == pytest.approx(below)
    assert curve[below] < 0.95 <= curve[below + 10]


def test_the_curve_of_uniform_use_and_of_none() -> None:
    assert combination_curve(np.full((6, 6), 3)) == pytest.approx(np.linspace(0, 1, 101))
    assert not combination_curve(np.diag([3, 4])).any()


def test_load_and_lift_of_groups(mask: np.ndarray) -> None:
    groups = [[0, 2], [1], [0, 1, 2, 3]]
    expected = [[sum(mask[:, p, :, e].sum() for p in group) for e in range(5)] for group in groups]
    load = grouped_load(mask, groups)
    assert load.tolist() == expected
    overall = mask.sum((0, 1, 2))
    lifts = lift(load, overall)
    for group in range(3):
        for expert in range(4):
            share = expected[group][expert] / sum(expected[group])
            assert lifts[group, expert] == pytest.approx(share / (overall[expert] / overall.sum()))
    assert lifts[2] == pytest.approx(np.ones(5))
    assert lift(np.zeros((1, 5), int), overall).tolist() == [[1.0] * 5]


def test_words_of_prompts() -> None:
    words = words_of(["Red apple, noto emoji", "green apple (ripe) apple", ""])
    assert words == {"apple": [0, 1], "red": [0], "noto": [0], "emoji": [0], "green": [1], "ripe": [1]}
    assert next(iter(words)) == "apple"


def test_cosines() -> None:
    rows = np.array([[3.0, 4.0], [-6.0, -8.0], [4.0, -3.0], [0.0, 0.0]])
    assert cosines(rows) == pytest.approx(
        np.array([[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0.0]]), abs=1e-12
    )
