"""EC-DiT's capacity factor f_c: any number of experts per token on average, and another one at inference."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from expert_choice_oracle import best_in_groups
from pydantic import ValidationError

from leandit.models import DiTConfig, count_parameters, forward_flops
from leandit.moe import MoEConfig, MoELayer, PooledRouter, select_mask

CHOICE = {"strategy": "expert_choice", "gate": "softmax", "k": 2, "num_experts": 4, "hidden_split": 1}


@pytest.mark.parametrize("group_tokens", [None, 8, 100, 7])
@pytest.mark.parametrize("factor", ["0.57", "1.5", "2", "2.7", "0.1", "4", "1.1"])
def test_slots_are_those_of_the_loop(factor: str, group_tokens: int | None) -> None:
    scores = np.random.default_rng(1).standard_normal((3, 100, 4))
    mask, _ = select_mask(
        torch.from_numpy(scores), strategy="expert_choice", k=float(factor), group_tokens=group_tokens
    )
    np.testing.assert_array_equal(mask.numpy(), best_in_groups(scores, Fraction(factor), group_tokens or 100))


def test_a_whole_factor_is_k_to_the_bit() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 10, 8)
    layers = [MoELayer(MoEConfig(**CHOICE, **factor), 8, 16) for factor in ({}, {"capacity_factor": 2.0})]
    layers[1].load_state_dict(layers[0].state_dict())
    outputs = [layer(x) for layer in layers]
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert torch.equal(outputs[0][1].mask, outputs[1][1].mask)


@pytest.mark.parametrize(
    ("factors", "trained", "drawn"),
    [
        ({}, 2.0, 2.0),
        ({"capacity_factor": 1.5}, 1.5, 1.5),
        ({"capacity_factor": 1.5, "inference_capacity_factor": 3.0}, 1.5, 3.0),
        ({"inference_capacity_factor": 0.5}, 2.0, 0.5),
    ],
)
def test_training_and_inference_have_their_own(factors: dict[str, float], trained: float, drawn: float) -> None:
    router = PooledRouter(MoEConfig(**CHOICE, **factors), 8)
    torch.nn.init.normal_(router.hidden.weight)
    torch.nn.init.normal_(router.gate_head.weight)
    x = torch.randn(2, 16, 8)
    for training, expected in ((True, trained), (False, drawn)):
        router.train(training)
        output = router(x)
        assert output.mask.sum() == 32 * expected
        assert router.most_pairs(32) == 32 * expected
        assert (output.mask.sum((0, 1)) == 8 * expected).all()  # the load is even, whatever the number


def test_gradients_and_a_bound_that_holds_for_odd_sizes() -> None:
    layer = MoELayer(MoEConfig(**CHOICE, capacity_factor=0.57), 8, 16)
    for tokens in (1, 2, 7, 13):
        y, routing = layer(torch.randn(3, tokens, 8))
        y.sum().backward()
        pairs = int(routing.mask.sum())
        assert pairs == 3 * int(tokens * Fraction("0.57"))
        assert pairs <= layer.router.most_pairs(3 * tokens)


def test_cost_follows_the_factor() -> None:
    def model(**moe: float) -> DiTConfig:
        given = {"dim": 32, "depth": 2, "heads": 2, "patch_size": 2, "input_size": 8, "channels": 3, "num_classes": 0}
        return DiTConfig(**given, moe=MoEConfig(**CHOICE, **moe))

    k2, half = model(), model(capacity_factor=1.0)
    expert = 2 * 32 * 128  # two matrices
    assert count_parameters(k2).activated - count_parameters(half).activated == 2 * expert
    assert count_parameters(model(capacity_factor=1.5)).activated - count_parameters(half).activated == expert
    assert forward_flops(k2) - forward_flops(half) == 2 * 2 * 16 * expert


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": "expert_race", "gate": "identity", "capacity_factor": 1.5}, "token_choice and expert_choice"),
        ({"capacity_factor": 4.5}, "4.5 is more than num_experts = 4"),
        ({"inference_capacity_factor": 5.0}, "5 is more than num_experts = 4"),
        ({"capacity_factor": 0.0}, "greater than 0"),
    ],
)
def test_factors_that_mean_nothing_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MoEConfig(**{**CHOICE, **settings})
