"""Balance metrics against brute force, the reduction of a step, and the collapse watch."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from leandit.moe import (
    CollapseWatch,
    RouterOutput,
    RouterStats,
    combination_usage,
    combine,
    max_violation,
    router_stats,
)


def stats(load: list[float]) -> RouterStats:
    return RouterStats(torch.diag(torch.tensor(load, dtype=torch.float32)), None)


def output(mask: Tensor, cutoff: float | None) -> RouterOutput:
    scores = torch.randn(mask.shape)
    value = None if cutoff is None else torch.tensor(cutoff)
    return RouterOutput(scores, scores, scores, mask, mask, value)


def test_max_violation() -> None:
    assert max_violation(torch.tensor([3.0, 3.0, 3.0])) == 0.0
    assert max_violation(torch.tensor([0.0, 8.0, 0.0, 0.0])) == pytest.approx(3.0)  # E - 1
    assert max_violation(torch.tensor([1.0, 2.0, 6.0])) == pytest.approx(1.0)
    assert max_violation(torch.zeros(3)) == 2.0  # no expert got anything: that is no balance


def test_combination_usage_of_uniform_and_of_no_pairs() -> None:
    assert combination_usage(torch.ones(32, 32)) == pytest.approx(95, abs=0.3)
    assert combination_usage(torch.diag(torch.ones(8))) == 0.0


def test_combination_usage_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((200, 9)) < np.linspace(0.05, 0.7, 9)
    together = torch.from_numpy((mask.T.astype(float) @ mask.astype(float)).astype(np.float32))
    counts = {pair: sum(bool(row[pair[0]] and row[pair[1]]) for row in mask) for pair in combinations(range(9), 2)}
    used, running = 0, 0
    for count in sorted(counts.values(), reverse=True):
        running += count
        used += running < 0.95 * sum(counts.values())
    assert 0 < used < len(counts)
    assert combination_usage(together) == pytest.approx(100 * used / len(counts))


def test_a_step_sums_counts_and_averages_cutoffs_layer_by_layer() -> None:
    masks = torch.rand(2, 2, 1, 6, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    micro = [[output(masks[i, 0], 1.0 + 2 * i), output(masks[i, 1], None)] for i in range(2)]
    first, second = combine([router_stats(outputs, 2) for outputs in micro])
    assert first.cutoff is not None
    assert first.cutoff.item() == pytest.approx(2.0)
    assert second.cutoff is None
    for layer, record in enumerate((first, second)):
        assert record.load.tolist() == masks[:, layer].sum((0, 1, 2)).tolist()


def test_a_shared_router_has_one_record_for_all_its_layers() -> None:
    masks = torch.rand(2, 1, 6, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    (record,) = router_stats([output(masks[0], 1.0), output(masks[1], 4.0)], num_routers=1)
    assert record.cutoff is not None
    assert record.cutoff.item() == pytest.approx(2.5)
    assert record.load.tolist() == masks.sum((0, 1, 2)).tolist()
    with pytest.raises(ValueError, match="2 router outputs for 3 routers"):
        router_stats([output(masks[0], 1.0), output(masks[1], 4.0)], num_routers=3)
    assert combine([router_stats((), 0)]) == []


def test_a_restored_watch_counts_on() -> None:
    watch = CollapseWatch(["layer"])
    for _ in range(49):
        watch.update(np.array([[10.0, 0.0]]))
    assert watch.counts == [[0, 49]]
    restored = CollapseWatch(["layer"])
    restored.restore(watch.counts)
    assert len(restored.update(np.array([[10.0, 0.0]]))) == 1


def test_the_watch_names_a_starved_expert_once_after_fifty_steps() -> None:
    watch = CollapseWatch(["blocks.0", "blocks.1"])
    step = np.array([[10.0, 10.0, 10.0], [10.0, 0.0, 10.0]])
    assert [watch.update(step) for _ in range(49)] == [[]] * 49
    (line,) = watch.update(step)
    assert "blocks.1: expert 1 " in line
    assert "50 steps" in line
    assert [watch.update(step) for _ in range(60)] == [[]] * 60


def test_the_watch_begins_anew_after_a_recovery() -> None:
    watch = CollapseWatch(["layer"])
    for _ in range(49):
        assert watch.update(np.array([[10.0, 0.0]])) == []
    assert watch.update(np.array([[10.0, 10.0]])) == []
    assert [watch.update(np.array([[10.0, 0.0]])) for _ in range(49)] == [[]] * 49
    assert len(watch.update(np.array([[10.0, 0.0]]))) == 1


def test_the_watch_compares_with_a_share_of_the_mean() -> None:
    """1 % of a mean of 100 is one pair: 0.9 starves, 1.1 does not."""
    watch = CollapseWatch(["layer"], patience=1)
    assert watch.update(np.array([[199.1, 0.9]])) != []
    assert CollapseWatch(["layer"], patience=1).update(np.array([[198.9, 1.1]])) == []


def test_experts_that_get_nothing_at_all_starve() -> None:
    watch = CollapseWatch(["only"], patience=2)
    loads = np.zeros((1, 3))
    assert watch.update(loads) == []
    assert [line.split(" got ")[0] for line in watch.update(loads)] == [f"only: expert {e}" for e in range(3)]
