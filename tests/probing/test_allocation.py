"""Where pairs go against loops, and FLOPs against counting each pair by hand."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
import torch
from routed_models import CONFIGS, build, class_run, condition, noisy

from leandit.models import forward_flops
from leandit.probing import RoutingRecorder, RoutingTrace, draw_recorded
from leandit.probing.allocation import budget_flops, largest_share, moment_sums, moments, spent_flops, top_shares


def test_moments_hold_every_call_once_from_noise_to_picture() -> None:
    times = np.array([1.0, 0.5, 0.5, 0.75, 0.25, 1.0])
    assert moments(times, 10) == [[0, 5], [3], [1, 2], [4]]
    assert moments(times, 2) == [[0, 3, 5], [1, 2, 4]]
    assert sorted(call for part in moments(times, 3) for call in part) == list(range(6))


def test_sums_over_moments() -> None:
    counts = np.arange(24).reshape(4, 2, 3)
    sums = moment_sums(counts, [[0, 3], [1, 2]])
    assert sums.tolist() == [(counts[0] + counts[3]).tolist(), (counts[1] + counts[2]).tolist()]


def test_the_busiest_tokens() -> None:
    counts = np.random.default_rng(0).integers(0, 9, (3, 2, 2, 7))
    fractions = (0.1, 0.5, 1.0)
    shares = top_shares(counts, fractions)
    for layer in range(2):
        for index, fraction in enumerate(fractions):
            kept = [
                sum(sorted(counts[call, layer, picture], reverse=True)[: ceil(7 * fraction)])
                for call in range(3)
                for picture in range(2)
            ]
            assert shares[layer, index] == pytest.approx(sum(kept) / counts[:, layer].sum())
    assert top_shares(np.full((1, 1, 1, 100), 2), (0.07, 0.29)).tolist() == [[0.07, 0.29]]
    assert top_shares(np.zeros((1, 1, 1, 4), int), (0.5,)).tolist() == [[0.0]]


def test_the_largest_share_of_a_layers_experts() -> None:
    counts = np.ones((2, 2, 1, 9), int)
    counts[1, 1, 0, 4] = 28
    assert largest_share(counts, 64).tolist() == [1 / 64, 0.4375]


def recorded(name: str, passes: int = 1) -> RoutingTrace:
    config = CONFIGS[name]
    model = build(config)
    with RoutingRecorder(model, 2) as recorder, torch.no_grad():
        batch = 2 * passes
        model(noisy(config, batch), torch.full((batch,), 0.5), condition(config, batch))
    return recorder.trace()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("passes", [1, 2])
def test_flops_follow_the_pairs(name: str, passes: int) -> None:
    config, trace = CONFIGS[name], recorded(name, passes)
    text = 5 if config.conditions_on_text else 0
    per_pair = (6 if config.moe.expert == "swiglu" else 4) * 32 * (128 // 2)
    at_budget = 2 * 16 * len(trace.layers)  # k = 2 experts for each of 16 tokens in each layer
    for picture in range(2):
        pairs = int(trace.experts[0, :, picture].sum()) + int(trace.twin_pairs[0, :, picture].sum())
        expected = passes * forward_flops(config, text) + per_pair * (pairs - passes * at_budget)
        assert spent_flops(config, trace)[0, picture] == expected
        assert budget_flops(config, trace)[0, picture] == passes * forward_flops(config, text)


def test_at_exactly_k_experts_the_flops_are_the_budget() -> None:
    trace = recorded("dit", 1)
    even = replace(trace, experts=torch.full_like(trace.experts, 2))
    assert np.array_equal(spent_flops(CONFIGS["dit"], even), budget_flops(CONFIGS["dit"], even))


def test_flops_of_an_inference_factor_are_those_of_its_own_pairs() -> None:
    """Two runs that draw with the same pairs cost the same, whatever they were trained with."""
    spent = []
    for trained in (2.0, 0.5):
        factors = {"capacity_factor": trained, "inference_capacity_factor": 0.5}
        run = class_run(hidden_split=1, strategy="expert_choice", gate="softmax", **factors)
        trace = draw_recorded(run, [0], [0]).trace
        spent.append(spent_flops(run.model.config, trace).tolist())
        assert budget_flops(run.model.config, trace).tolist() == spent[-1]
    assert spent[0] == spent[1]
