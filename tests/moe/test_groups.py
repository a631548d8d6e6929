"""Expert choice over groups of consecutive tokens that may span samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from expert_choice_oracle import best_in_groups
from pydantic import ValidationError
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.moe import STRATEGIES, MoEConfig, PooledRouter, select_mask


def mask_of(scores: Tensor, k: int, group_tokens: int | None) -> Tensor:
    return select_mask(scores, strategy="expert_choice", k=k, group_tokens=group_tokens)[0]


@pytest.mark.parametrize(
    ("shape", "k", "group_tokens"),
    [
        ((4, 8, 4), 2, 16),  # two samples a group
        ((4, 8, 4), 2, 4),  # half a sample
        ((4, 6, 3), 1, 9),  # one and a half
        ((3, 8, 4), 2, 16),  # a last group of half the size
        ((1, 8, 4), 2, 16),  # a batch smaller than a group
        ((3, 7, 5), 2, 8),  # nothing divides by anything
        ((2, 5, 7), 1, 3),  # fewer than one token for an expert
        ((2, 3, 4), 4, 2),  # all of them
        ((2, 4, 1), 1, 3),
    ],
    ids=str,
)
def test_equals_the_loop(shape: tuple[int, int, int], k: int, group_tokens: int) -> None:
    scores = np.random.default_rng(0).standard_normal(shape)
    mask = mask_of(torch.from_numpy(scores), k, group_tokens).numpy()
    np.testing.assert_array_equal(mask, best_in_groups(scores, k, group_tokens))
    assert mask.sum() == shape[0] * shape[1] * k


def test_the_capacities_of_ec_dit() -> None:
    """1,024 tokens in training and 512 at inference, capacity factor 2: so many tokens for each expert."""
    for num_experts, capacities in {8: (256, 128), 16: (128, 64), 32: (64, 32), 64: (32, 16)}.items():
        scores = torch.rand(2, 1024, num_experts)
        for group_tokens, capacity in zip((1024, 512), capacities, strict=True):
            groups = mask_of(scores, 2, group_tokens).reshape(-1, group_tokens, num_experts)
            assert (groups.sum(1) == capacity).all()


def test_a_group_of_one_sample_is_plain_expert_choice_and_one_of_the_batch_is_bl_choice() -> None:
    scores = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mask_of(scores, 2, 6), mask_of(scores, 2, None))
    whole, _ = select_mask(scores, strategy="bl_choice", k=2)
    assert torch.equal(mask_of(scores, 2, 24), whole)
    assert not torch.equal(whole, mask_of(scores, 2, None))


def test_non_contiguous_scores_and_an_empty_batch() -> None:
    scores = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0)).permute(2, 1, 0)
    assert torch.equal(mask_of(scores, 1, 8), mask_of(scores.contiguous(), 1, 8))
    assert mask_of(torch.empty(0, 6, 4), 1, 8).shape == (0, 6, 4)


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"expert_choice"}))
def test_other_strategies_have_no_groups(strategy: str) -> None:
    with pytest.raises(LeanDiTError, match=f"strategy {strategy} does not support groups"):
        select_mask(torch.randn(2, 4, 4), strategy=strategy, k=1, group_tokens=4)
    for key in ("group_tokens", "inference_group_tokens"):
        with pytest.raises(ValidationError, match=f"{key} is for strategy=expert_choice; with {strategy}"):
            MoEConfig(strategy=strategy, **{key: 4})


def test_a_group_has_at_least_one_token() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        MoEConfig(strategy="expert_choice", group_tokens=0)


def router(**groups: int | None) -> PooledRouter:
    settings = MoEConfig(
        strategy="expert_choice", gate="softmax", k=1, num_experts=4, router="linear", per_layer_regularisation=False
    )
    layer = PooledRouter(settings.replace(**groups), 8, 12)
    nn.init.normal_(layer.gate_head.weight, generator=torch.Generator().manual_seed(0))
    return layer


@pytest.mark.parametrize(
    ("groups", "in_training", "in_evaluation"),
    [
        ({}, None, None),
        ({"group_tokens": 12}, 12, None),
        ({"inference_group_tokens": 12}, None, 12),
        ({"group_tokens": 24, "inference_group_tokens": 12}, 24, 12),
    ],
    ids=str,
)
def test_training_and_evaluation_have_their_own_groups(
    groups: dict[str, int], in_training: int | None, in_evaluation: int | None
) -> None:
    layer, x = router(**groups), torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(1))
    assert not any("threshold" in name for name in layer.state_dict())
    for training, group_tokens in ((True, in_training), (False, in_evaluation)):
        output = layer.train(training)(x)
        assert torch.equal(output.mask, mask_of(output.scores, 1, group_tokens))
        alone = layer(x[:1]).mask
        assert torch.equal(alone[0], output.mask[0]) is (group_tokens is None)
