"""The compute budget: thresholds as quantiles of what was recorded, and what a model without thresholds says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leandit.errors import LeanDiTError
from leandit.moe import MoEConfig, MoELayer, routers
from leandit.moe.budget import Calibration, check_share, has_thresholds, record_scores, scaled, shifted


def layer(**changes: object) -> MoELayer:
    torch.manual_seed(0)
    return MoELayer(MoEConfig(**{"k": 2, "num_experts": 4, **changes}), dim=8, hidden=16).eval()  # type: ignore[arg-type]


def test_thresholds_are_quantiles_of_the_recorded_scores() -> None:
    scores = torch.tensor([5.0, 4, 3, 2, 1, 0])[:, None]
    calibration = Calibration((torch.tensor(2.5),), (scores,))
    for budget, kept in ((1 / 3, 1), (2 / 3, 2), (4 / 3, 4), (2.0, 6), (9.0, 6)):
        (tau,) = calibration.thresholds(budget)
        assert tau.shape == ()
        assert sum(score >= float(tau) for score in scores[:, 0].tolist()) == kept
    assert calibration.thresholds(1.0)[0] == 2.5


def test_a_threshold_per_expert_is_shifted_by_its_own_scores() -> None:
    scores = torch.tensor([[4.0, 40], [3, 30], [2, 20], [1, 10]])
    calibration = Calibration((torch.tensor([3.0, 99.0]),), (scores,))
    (tau,) = calibration.thresholds(2.0)
    # The first expert kept two and now keeps four; the second kept none, which says nothing.
    assert tau.tolist() == [1.0, 99.0]
    assert calibration.thresholds(0.5)[0].tolist() == [4.0, 99.0]


@pytest.mark.parametrize("strategy", ["expert_race", "be_choice", "bl_choice"])
def test_half_the_compute_is_half_the_pairs_of_what_was_recorded(strategy: str) -> None:
    model, x = layer(strategy=strategy, threshold_init=0.0), torch.randn(3, 50, 8)
    calibration = record_scores(model, lambda: model(x), samples=3)
    before = model(x)[1].mask
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for share in (0.5, 1.0, 1.5):
        with shifted(model, calibration.thresholds(share)):
            after = model(x)[1].mask
        expected = (before.sum((0, 1)) * share).round() if strategy == "bl_choice" else (before.sum() * share).round()
        assert torch.equal(after.sum((0, 1)) if strategy == "bl_choice" else after.sum(), expected.long())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_only_the_conditional_half_is_recorded() -> None:
    model, x = layer(), torch.randn(6, 5, 8)
    (scores,) = record_scores(model, lambda: model(x), samples=3).scores
    torch.testing.assert_close(scores[:, 0], model(x[:3])[1].scores.flatten().sort(descending=True).values)


@pytest.mark.parametrize(
    ("model", "share", "message"),
    [
        (layer(strategy="token_choice"), 0.5, "so their number is fixed; omit compute"),
        (layer(routing={"type": "biased"}), 2.0, "selected without a threshold"),
        (nn.Linear(2, 2), 0.5, "it is dense and has no experts"),
        (layer(), 0.0, "above 0, such as 0.5"),
        (layer(), float("nan"), "above 0"),
        (layer(), float("inf"), "above 0"),
    ],
    ids=["token_choice", "biased", "dense", "zero", "nan", "inf"],
)
def test_what_cannot_be_spent_is_refused(model: nn.Module, share: float, message: str) -> None:
    with pytest.raises(LeanDiTError, match=message):
        check_share(model, share)
    assert has_thresholds(model) is (share in (0.0, float("inf")) or share != share)


@pytest.mark.parametrize("group_tokens", [None, 25])
def test_expert_choice_has_exactly_the_share(group_tokens: int | None) -> None:
    model, x = layer(strategy="expert_choice", inference_group_tokens=group_tokens), torch.randn(3, 50, 8)
    before = model(x)
    for share in (0.25, 0.57, 1.5, 2.0):
        check_share(model, share)
        with scaled(model, share):
            size = group_tokens or 50
            assert model(x)[1].mask.sum() == 150 // size * int(round(2 * share * size, 6))
    with pytest.raises(ZeroDivisionError), scaled(model, 0.5):
        assert 1 / 0
    assert torch.equal(model(x)[0], before[0])
    with pytest.raises(LeanDiTError, match="every token has every expert at 2; give at most this"):
        check_share(model, 2.1)


def test_one_is_as_trained_for_every_model() -> None:
    check_share(nn.Linear(2, 2), 1.0)
    check_share(layer(strategy="token_choice"), 1.0)
    assert len(list(routers(layer()))) == 1


def test_a_share_that_leaves_no_pair_or_more_than_all_is_told_with_a_number_that_works() -> None:
    model = layer(strategy="expert_choice", k=3, num_experts=8, hidden_split=1, inference_group_tokens=16)
    with pytest.raises(LeanDiTError, match=r"every token has every expert at 2\.666; give at most this"):
        check_share(model, 2.66667)
    check_share(model, 2.666)
    for share in (0.01, 1e-60, 1e-300):
        with pytest.raises(LeanDiTError, match="so small a share leaves no expert a token"):
            check_share(model, share)
    check_share(model, 1 / 48)
    with scaled(model, 1 / 48):
        assert model(torch.randn(1, 16, 8))[1].mask.sum() == 1
