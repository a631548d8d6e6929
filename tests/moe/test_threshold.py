"""Thresholds: what moves them, by how much, and what does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leandit.moe import MoEConfig, PooledRouter, Threshold, after_step, combine, router_stats, routers


def router(strategy: str, momentum: float = 0.9, init: float = 1.0) -> PooledRouter:
    config = MoEConfig(
        strategy=strategy,
        k=2,
        num_experts=4,
        threshold_momentum=momentum,
        threshold_init=init,
        per_layer_regularisation=False,
    )
    module = PooledRouter(config, 8, 3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    return module


def smallest_kept(scores: Tensor, strategy: str) -> Tensor:
    """The cutoff by a full sort: per expert for bl_choice, the mean over tokens for be_choice."""
    batch, tokens, experts = scores.shape
    if strategy == "expert_race":
        return scores.flatten().sort(descending=True).values[batch * tokens * 2 - 1]
    if strategy == "be_choice":
        return scores.permute(1, 0, 2).flatten(1).sort(descending=True).values[:, batch * 2 - 1].mean()
    return scores.flatten(0, 1).sort(0, descending=True).values[batch * tokens * 2 // experts - 1]


@pytest.mark.parametrize("strategy", ["expert_race", "be_choice", "bl_choice"])
def test_one_step_moves_by_the_mean_of_its_micro_batches_once(strategy: str) -> None:
    module = router(strategy)
    outputs = [module(torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(i))) for i in range(2)]
    before = module.threshold.value.clone()
    assert (before == 1.0).all()
    after_step(module, combine([router_stats([output], 1) for output in outputs]))
    cutoff = torch.stack([smallest_kept(output.scores.detach(), strategy) for output in outputs]).mean(0)
    torch.testing.assert_close(module.threshold.value, 0.9 * before + 0.1 * cutoff)
    assert module.threshold.value.shape == ((4,) if strategy == "bl_choice" else ())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("strategy", ["expert_race", "be_choice", "bl_choice"])
def test_forward_changes_no_state(strategy: str, training: bool) -> None:
    module = router(strategy).train(training)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module(torch.randn(3, 6, 8))
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_evaluation_keeps_the_scores_that_reach_the_threshold() -> None:
    module = router("expert_race").eval()
    x = torch.randn(3, 6, 8)
    scores = module(x).scores
    module.threshold.value.fill_(scores.flatten()[5])
    output = module(x)
    assert torch.equal(output.mask, scores >= scores.flatten()[5])
    assert output.mask.flatten()[5]  # the threshold itself is reached
    assert output.cutoff is None


def test_evaluation_compares_each_expert_with_its_own_threshold() -> None:
    module = router("bl_choice").eval()
    module.threshold.value.copy_(torch.tensor([-torch.inf, torch.inf, -torch.inf, 0.0]))
    output = module(torch.randn(3, 6, 8))
    assert output.mask[..., 0].all()
    assert not output.mask[..., 1].any()
    assert torch.equal(output.mask[..., 3], output.scores[..., 3] >= 0)


@pytest.mark.parametrize("strategy", ["token_choice", "expert_choice", "le_choice"])
def test_rules_within_a_sample_need_no_threshold(strategy: str) -> None:
    module = router(strategy)
    assert not list(module.buffers())
    x = torch.randn(3, 6, 8)
    training, evaluation = module(x), module.eval()(x)
    assert training.cutoff is None
    assert torch.equal(training.mask, evaluation.mask)
    after_step(module, router_stats([training], 1))


def test_an_expert_that_kept_nothing_leaves_its_threshold_alone() -> None:
    """The cutoff of an empty row is +inf, and an average would never come back from that."""
    threshold = Threshold("bl_choice", 3, momentum=0.9, init=1.0)
    threshold.update(torch.tensor([0.0, torch.inf, 2.0]))
    torch.testing.assert_close(threshold.value, torch.tensor([0.9, 1.0, 1.1]))


def test_routers_come_in_order_with_their_names() -> None:
    model = nn.ModuleDict({"first": router("expert_race"), "second": router("token_choice")})
    assert [name for name, _ in routers(model)] == ["first", "second"]


def test_logits_stay_in_fp32_under_autocast() -> None:
    module = router("expert_race")
    with torch.autocast("cpu", torch.bfloat16):
        output = module(torch.randn(3, 6, 8))
    assert output.logits.dtype == output.weights.dtype == torch.float32
