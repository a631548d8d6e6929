"""Token choice with a capacity against a loop over tokens: GShard's Algorithm 1 without its random draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from leandit.moe import MoEConfig, MoELayer, PooledRouter
from leandit.moe.gate import renormalize
from leandit.moe.strategies import select_mask, within_capacity


def algorithm_1(gates: np.ndarray, k: int, factor: float, group_tokens: int) -> np.ndarray:
    """Combine weights [T, E] of the flattened tokens: renormalised over the k best, 0 where no slot was left."""
    weights = np.zeros_like(gates)
    for start in range(0, len(gates), group_tokens):
        group = gates[start : start + group_tokens]
        slots = int(len(group) * factor / group.shape[1])
        taken = [0] * group.shape[1]
        best = [sorted(range(len(g)), key=lambda e, g=g: (-g[e], e))[:k] for g in group]
        for rank in range(k):
            for token, gate in enumerate(group):
                expert = best[token][rank]
                if taken[expert] < slots:
                    weights[start + token, expert] = gate[expert] / sum(gate[e] for e in best[token])
                taken[expert] += 1
    return weights


def both(scores: Tensor, k: int, factor: float, group_tokens: int | None) -> tuple[Tensor, Tensor, np.ndarray]:
    """The mask, the weights of its pairs as a matrix, and the loop's weights."""
    chosen, _ = select_mask(scores, strategy="token_choice", k=k)
    mask = within_capacity(scores, chosen, k=k, capacity_factor=factor, group_tokens=group_tokens)
    weights = torch.where(mask, renormalize(scores, chosen), 0.0)
    flat = scores.detach().numpy().reshape(-1, scores.shape[-1])
    expected = algorithm_1(flat, k, factor, group_tokens or scores.shape[1])
    return mask, weights, expected.reshape(scores.shape)


def gates(*shape: int, seed: int = 0, skew: float = 1.0) -> Tensor:
    """Softmax gates; with a skew the first experts are in demand."""
    logits = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (logits - skew * torch.arange(shape[-1])).softmax(-1)


@pytest.mark.parametrize(
    ("shape", "k", "factor", "group_tokens"),
    [
        ((3, 16, 4), 2, 2.0, None),  # GShard's own factor, each sample a group
        ((3, 16, 4), 2, 1.0, None),
        ((4, 8, 4), 2, 2.0, 16),  # two samples a group
        ((4, 6, 3), 2, 1.5, 9),  # one and a half
        ((3, 8, 4), 2, 2.0, 16),  # a last group of half the size
        ((3, 7, 5), 2, 2.0, 8),  # nothing divides by anything, and the last group has 2 slots
        ((2, 5, 8), 2, 1.25, 4),  # no slots at all: floor(4 * 1.25 / 8) = 0
        ((2, 5, 4), 2, 1.0, 8),  # slots in the first group, none in the last
        ((1, 6, 4), 2, 2.0, 16),  # a batch smaller than a group
        ((2, 9, 4), 1, 1.0, None),
        ((2, 9, 5), 3, 2.0, 6),
        ((2, 4, 3), 3, 3.0, None),  # room for everybody
    ],
    ids=str,
)
def test_equals_the_loop(shape: tuple[int, int, int], k: int, factor: float, group_tokens: int | None) -> None:
    mask, weights, expected = both(gates(*shape), k, factor, group_tokens)
    np.testing.assert_array_equal(mask.numpy(), expected > 0)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_ties_equal_the_loop(seed: int) -> None:
    """Gates of few values: ties within a token, and so for the order of its choices."""
    scores = torch.randint(1, 3, (3, 12, 4), generator=torch.Generator().manual_seed(seed)).double()
    mask, weights, expected = both(scores, 2, 1.0, 8)
    np.testing.assert_array_equal(mask.numpy(), expected > 0)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-12)


def test_first_choices_come_before_second_ones_and_earlier_tokens_before_later_ones() -> None:
    """Four tokens, two slots for each of two experts. Token 0 has expert 1 as its second choice, and loses it."""
    scores = torch.tensor([[[0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3]]])
    chosen = torch.ones_like(scores, dtype=torch.bool)
    mask = within_capacity(scores, chosen, k=2, capacity_factor=1.0)
    assert mask.tolist() == [[[True, False], [False, True], [False, True], [True, False]]]
    # A first choice beyond the slots is lost, too: expert 0 is everybody's.
    mask = within_capacity(scores.sort(-1, descending=True).values, chosen, k=2, capacity_factor=1.0)
    assert mask.tolist() == [[[True, True], [True, True], [False, False], [False, False]]]


def test_no_expert_gets_more_than_its_slots() -> None:
    mask, _, _ = both(gates(2, 64, 8, skew=0.5), 2, 2.0, None)
    load = mask.sum(1)
    assert load.max() == int(64 * 2 / 8)
    assert (load < 16).any()
    assert mask.sum(-1).min() == 0  # some tokens lost both


def test_non_contiguous_scores_and_an_empty_batch() -> None:
    scores = gates(4, 6, 3).permute(2, 1, 0)
    arguments: dict[str, Any] = {"k": 2, "capacity_factor": 1.0, "group_tokens": 4}
    chosen, _ = select_mask(scores, strategy="token_choice", k=2)
    mask = within_capacity(scores, chosen, **arguments)
    assert torch.equal(mask, within_capacity(scores.contiguous(), chosen.contiguous(), **arguments))
    empty = torch.empty(0, 6, 4)
    assert within_capacity(empty, empty.bool(), **arguments).shape == (0, 6, 4)


def test_renormalized_weights_of_chosen_experts_add_up_to_one_and_carry_the_gradient() -> None:
    scores = gates(2, 5, 4).requires_grad_()
    chosen, _ = select_mask(scores, strategy="token_choice", k=2)
    weights = renormalize(scores, chosen)
    torch.testing.assert_close((weights * chosen).sum(-1), torch.ones(2, 5, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda s: renormalize(s, chosen), scores)


def test_a_token_that_nobody_chose_has_finite_weights_and_no_gradient() -> None:
    scores = gates(1, 3, 4).requires_grad_()
    chosen = torch.zeros(1, 3, 4, dtype=torch.bool)
    chosen[0, 0, :2] = True
    weights = renormalize(scores, chosen)
    assert weights.isfinite().all()
    (gradient,) = torch.autograd.grad(weights[chosen].square().sum(), scores)
    assert gradient.isfinite().all()
    assert gradient[0, 0, :2].all()
    assert not gradient[0, 1:].any()


GSHARD: dict[str, Any] = {
    **{"strategy": "token_choice", "gate": "softmax", "k": 2, "num_experts": 4, "hidden_split": 1},
    **{"router": "linear", "per_layer_regularisation": False},
    **{"renormalize": True, "capacity_factor": 1.0},
}


def layer(**changes: Any) -> MoELayer:
    built = MoELayer(MoEConfig(**{**GSHARD, **changes}), dim=6, hidden=10, target_dim=12)
    generator = torch.Generator().manual_seed(0)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.6, generator=generator)
    return built.double()


def dense(built: MoELayer, x: Tensor, weights: Tensor) -> Tensor:
    """Every expert on every token, combined by the matrix of weights."""
    e = built.experts
    hidden = torch.nn.functional.gelu(torch.einsum("bld,edh->bleh", x, e.w1) + e.b1, approximate="tanh")
    return torch.einsum("ble,bled->bld", weights, torch.einsum("bleh,ehd->bled", hidden, e.w2) + e.b2)


@pytest.mark.parametrize("group_tokens", [None, 4, 16])
def test_the_layer_and_its_gradients_equal_the_dense_form(group_tokens: int | None) -> None:
    built = layer(group_tokens=group_tokens)
    x = torch.randn(3, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y, routing = built(x)
    scores = (x @ built.router.gate_head.weight.T).softmax(-1)
    _, _, expected = both(scores, 2, 1.0, group_tokens)
    kept = torch.from_numpy(expected > 0)
    assert torch.equal(routing.mask, kept)
    assert kept.sum() < 3 * 8 * 2
    best = scores.topk(2).values.sum(-1, keepdim=True)
    reference = dense(built, x, torch.where(kept, scores / best, 0.0))
    torch.testing.assert_close(y, reference, rtol=1e-10, atol=1e-12)
    parameters = [x, *built.parameters()]
    mine, theirs = (torch.autograd.grad(out.square().sum(), parameters) for out in (y, reference))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_scores_stay_as_the_selection_compared_them() -> None:
    routing = layer().router(torch.randn(2, 8, 6, dtype=torch.float64))
    torch.testing.assert_close(routing.scores.sum(-1), torch.ones(2, 8, dtype=torch.float64))
    assert (routing.weights > routing.scores)[routing.mask].all()


@pytest.mark.parametrize(
    ("changes", "dropless", "independent"),
    [
        ({}, True, True),
        ({"inference_capacity_factor": 1.0}, False, True),
        ({"inference_capacity_factor": 1.0, "inference_group_tokens": 8}, False, True),  # groups are whole samples
        ({"inference_capacity_factor": 1.0, "inference_group_tokens": 16}, False, False),
        ({"inference_capacity_factor": 1.0, "capacity_factor": None}, False, True),
    ],
    ids=str,
)
def test_evaluation_has_its_own_capacity_and_groups(changes: dict[str, Any], dropless: bool, independent: bool) -> None:
    built: PooledRouter = layer(**changes).router
    x = torch.randn(4, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x = x + 2 * built.gate_head.weight[0].detach()  # everybody's favourite is expert 0
    in_training = built.train()(x).mask
    assert bool((in_training.sum(-1) == 2).all()) is (built.config.capacity_factor is None)
    together = built.eval()(x).mask
    assert bool((together.sum(-1) == 2).all()) is dropless
    alone = torch.cat([built(x[i : i + 1]).mask for i in range(4)])
    assert torch.equal(together, alone) is independent


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"strategy": "le_choice"},
            "capacity_factor is for token_choice and expert_choice; with le_choice leave it null",
        ),
        ({"capacity_factor": None, "inference_capacity_factor": 2.0, "strategy": "expert_race"}, "inference_capacity"),
        ({"capacity_factor": 0.0}, "greater than 0"),
        ({"inference_group_tokens": 8}, "with token_choice also set inference_capacity_factor, or leave it null"),
        ({"capacity_factor": None, "group_tokens": 8}, "with token_choice also set capacity_factor, or leave it null"),
        ({"gate": "identity"}, "renormalize needs positive scores"),
    ],
    ids=str,
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MoEConfig(**{**GSHARD, **changes})


def test_renormalization_works_with_expert_choice() -> None:
    built = layer(strategy="expert_choice", capacity_factor=None).router
    routing = built(torch.randn(2, 8, 6, dtype=torch.float64))
    total = (routing.weights * routing.mask).sum(-1)
    torch.testing.assert_close(total, routing.mask.any(-1).double())
