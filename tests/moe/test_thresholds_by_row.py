"""Thresholds of strategies whose rows are tokens, and the race of training in evaluation."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from leandit.models import Conditioning, DiTConfig
from leandit.moe import MoEConfig, PooledRouter, Threshold, after_step, router_stats, routers, select_mask
from leandit.moe.budget import check_share, record_scores, shifted

TOKENS, EXPERTS, K = 6, 4, 2


def router(strategy: str, tokens: int = TOKENS, **changes: object) -> PooledRouter:
    settings = {"k": K, "num_experts": EXPERTS, "threshold_momentum": 0.5, "router": "linear", **changes}
    module = PooledRouter(MoEConfig(strategy=strategy, per_layer_regularisation=False, **settings), 8, tokens=tokens)
    # The mean of a token moves the scores of all experts.
    nn.init.normal_(module.gate_head.weight, mean=0.3, std=0.3, generator=torch.Generator().manual_seed(0))
    return module


def tokens_of_different_kind(batch: int, seed: int) -> torch.Tensor:
    """Tokens whose scores depend on their place: with one threshold for all, some places get all experts, some none."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.linspace(-2, 2, TOKENS)[:, None] * torch.ones(8)
    return place + 0.5 * torch.randn(batch, TOKENS, 8, generator=generator)


def trained(strategy: str, **changes: object) -> PooledRouter:
    module = router(strategy, **changes)
    for seed in range(30):
        after_step(module, router_stats([module(tokens_of_different_kind(64, seed))], 1))
    return module


def test_each_token_of_be_choice_keeps_in_evaluation_what_it_kept_in_training() -> None:
    module = trained("be_choice")
    assert module.threshold.value.shape == (TOKENS,)
    x = tokens_of_different_kind(2000, seed=100)
    training = module(x).mask.float().sum(-1).mean(0)
    torch.testing.assert_close(training, torch.full((TOKENS,), float(K)))
    evaluation = module.eval()(x).mask.float().sum(-1).mean(0)
    torch.testing.assert_close(evaluation, training, atol=0.25, rtol=0)
    # One number for all places, as it was, would not do that.
    module.threshold.value.fill_(float(module.threshold.value.mean()))
    spread = module(x).mask.float().sum(-1).mean(0)
    assert spread.max() - spread.min() > 1


def test_the_cutoff_of_a_place_is_the_smallest_score_that_it_kept() -> None:
    module = router("be_choice")
    output = module(tokens_of_different_kind(5, seed=1))
    sorted_LN = output.scores.detach().permute(1, 0, 2).flatten(1).sort(descending=True).values
    torch.testing.assert_close(output.cutoff, sorted_LN[:, 5 * K - 1])


def test_a_sequence_of_another_length_is_compared_with_the_mean() -> None:
    threshold = Threshold("be_choice", EXPERTS, 0.5, 0.0, tokens=3)
    threshold.value.copy_(torch.tensor([0.0, 1.0, 5.0]))
    scores = torch.tensor([[[1.0, 3.0]] * 4])
    assert threshold.select(scores).tolist() == [[[False, True]] * 4]
    assert threshold.select(scores[:, :3]).tolist() == [[[True, True], [True, True], [False, False]]]
    threshold.update(threshold.reduce(torch.tensor([1.0, 2.0, 3.0, 6.0])))
    torch.testing.assert_close(threshold.value, torch.tensor([1.5, 2.0, 4.0]))


def test_a_checkpoint_with_one_value_fills_all_rows() -> None:
    threshold = Threshold("be_choice", EXPERTS, 0.5, 0.0, tokens=3)
    threshold.load_state_dict({"value": torch.tensor(0.7)})
    assert threshold.value.tolist() == pytest.approx([0.7] * 3)
    threshold.update(torch.tensor([0.7, 1.7, 2.7]))  # rows move on their own
    assert threshold.value.tolist() == pytest.approx([0.7, 1.2, 1.7])


def test_a_model_knows_its_number_of_tokens() -> None:
    moe = MoEConfig(strategy="be_choice", k=1, num_experts=2)
    sizes = {"dim": 8, "depth": 2, "heads": 2, "channels": 1, "num_classes": 0}
    model = DiTConfig(**sizes, input_size=(8, 12), moe=moe).build()
    assert [router.threshold.value.shape for _, router in routers(model)] == [(24,), (24,)]
    model(torch.randn(2, 1, 8, 12), torch.rand(2), Conditioning())
    model.eval()(torch.randn(2, 1, 16, 12), torch.rand(2), Conditioning())


@pytest.mark.parametrize("tokens", [TOKENS, 0])
def test_the_budget_moves_the_threshold_of_each_place(tokens: int) -> None:
    module = trained("be_choice", tokens=tokens).eval()
    x = tokens_of_different_kind(500, seed=7)
    model = nn.ModuleList([module])
    calibration = record_scores(model, lambda: module(x), samples=500)
    before = module(x).mask.float().sum(-1).mean(0)
    with shifted(model, calibration.thresholds(0.5)):
        halved = module(x).mask.float().sum(-1).mean(0)
    torch.testing.assert_close(halved.mean(), before.mean() / 2, atol=0.01, rtol=0)
    if tokens:
        torch.testing.assert_close(halved, before / 2, atol=0.01, rtol=0)


@pytest.mark.parametrize("strategy", ["expert_race", "bl_choice", "be_choice"])
def test_the_race_of_training_in_evaluation(strategy: str) -> None:
    module = router(strategy, inference="race").eval()
    x = tokens_of_different_kind(5, seed=2)
    output = module(x)
    expected, _ = select_mask(output.scores, strategy=strategy, k=K)
    assert torch.equal(output.mask, expected)
    assert output.cutoff is None
    assert module.most_pairs(30) == 60
    # The threshold is still tracked, so that the same weights can be drawn with either.
    module.train()
    after_step(module, router_stats([module(x)], 1))
    assert (module.threshold.value != 1).all()
    same = router(strategy).eval()
    same.load_state_dict(module.state_dict())
    assert not torch.equal(same(x).mask, expected)


def test_a_race_has_no_budget_to_move() -> None:
    with pytest.raises(Exception, match="without a threshold, so their number is fixed"):
        check_share(nn.ModuleList([router("expert_race", inference="race")]), 0.5)


def test_a_strategy_within_a_sample_has_no_other_selection_in_evaluation() -> None:
    with pytest.raises(ValidationError, match="inference=race: token_choice is the same in evaluation"):
        MoEConfig(strategy="token_choice", inference="race")
