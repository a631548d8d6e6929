"""Router losses: the paper's formula in a loop, known values, and where the gradient goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from leandit.moe import (
    MoEConfig,
    PooledRouter,
    RouterOutput,
    auxiliary_losses,
    gshard_balance,
    load_balance,
    router_similarity,
    z_loss,
)
from leandit.moe.losses import co_selection
from leandit.moe.strategies import select_mask


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def race(logits: Tensor, k: int) -> Tensor:
    return select_mask(logits[None], strategy="expert_race", k=k)[0][0]


def similarity_loop(logits: np.ndarray, mask: np.ndarray) -> float:
    """Expert Race, eqs. 9-11, one pair of experts after the other."""
    tokens, experts = logits.shape
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    together = {(i, j): float((mask[:, i] & mask[:, j]).sum()) for i in range(experts) for j in range(experts)}
    diagonal = sum(count for (i, j), count in together.items() if i == j)
    off = sum(count for (i, j), count in together.items() if i != j)
    total = 0.0
    for (i, j), count in together.items():
        share = count / max(diagonal, 1) * experts if i == j else count / max(off, 1) * (experts**2 - experts)
        total += share * (p[:, i] @ p[:, j])
    return total / tokens


@pytest.mark.parametrize("k", [1, 2, 4])
def test_similarity_equals_the_loop(k: int) -> None:
    logits = normal(24, 5).double()
    mask = race(logits, k)
    expected = similarity_loop(logits.numpy(), mask.numpy())
    assert router_similarity(logits, mask).item() == pytest.approx(expected, rel=1e-6)
    shaped = router_similarity(logits.view(2, 12, 5), mask.view(2, 12, 5))
    assert shaped.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("pairs", [0, 1, 2])
def test_similarity_of_hardly_any_pairs_equals_the_loop(pairs: int) -> None:
    logits, mask = normal(3, 5).double(), torch.zeros(3, 5, dtype=torch.bool)
    mask[0, :pairs] = True
    expected = similarity_loop(logits.numpy(), mask.numpy())
    assert router_similarity(logits, mask).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_similarity_is_one_for_uniform_probabilities_whatever_the_mask(seed: int) -> None:
    mask = torch.rand(64, 8, generator=torch.Generator().manual_seed(seed)) < 0.3
    assert router_similarity(torch.zeros(64, 8), mask).item() == pytest.approx(1.0, abs=1e-6)


def shifted(logits: Tensor) -> Tensor:
    logits[:, 0] += 3
    return logits


@pytest.mark.parametrize(
    ("logits", "expected", "tolerance"),
    [
        (normal(8192, 32), 1.002, 0.003),
        (normal(8192, 16).repeat_interleave(2, dim=1), 1.21, 0.02),
        (3 * normal(8192, 16).repeat_interleave(2, dim=1), 2.23, 0.03),
        (shifted(normal(8192, 32)), 3.67, 0.08),
    ],
    ids=["independent", "identical pairs", "identical pairs, sharp", "one expert ahead"],
)
def test_similarity_of_known_situations_4_in_32(logits: Tensor, expected: float, tolerance: float) -> None:
    assert router_similarity(logits, race(logits, 4)).item() == pytest.approx(expected, abs=tolerance)


def test_similarity_of_a_balanced_hard_choice_of_one_expert_is_one() -> None:
    mask = torch.eye(4, dtype=torch.bool).repeat(6, 1)
    assert router_similarity(1e4 * mask.float(), mask).item() == pytest.approx(1.0, abs=1e-6)


def test_similarity_of_an_empty_mask_is_zero() -> None:
    assert router_similarity(normal(6, 3), torch.zeros(6, 3, dtype=torch.bool)).item() == 0.0


def test_gradients_equal_finite_differences_with_the_mask_held_fixed() -> None:
    logits = normal(6, 4).double().requires_grad_()
    mask = race(logits.detach(), 2)
    for loss in (lambda x: router_similarity(x, mask), lambda x: load_balance(x, mask), gshard_balance, z_loss):
        assert torch.autograd.gradcheck(loss, logits)


def test_similarity_pushes_apart_what_is_chosen_together() -> None:
    """Two of four experts always win together: a step down the gradient lowers their joint probability."""
    logits = normal(32, 4).requires_grad_()
    mask = torch.tensor([[True, True, False, False]]).repeat(32, 1)
    (gradient,) = torch.autograd.grad(router_similarity(logits, mask), logits)
    before, after = (x.detach().softmax(-1) for x in (logits, logits - 10 * gradient))
    assert (after[:, 0] * after[:, 1]).mean() < (before[:, 0] * before[:, 1]).mean()


def test_co_selection_counts_pairs() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]], dtype=torch.bool)
    assert co_selection(mask).tolist() == [[3, 2, 1], [2, 2, 1], [1, 1, 1]]


def test_co_selection_is_exact_under_autocast() -> None:
    """bf16 has no 257."""
    with torch.autocast("cpu", torch.bfloat16):
        assert co_selection(torch.ones(257, 2, dtype=torch.bool)).tolist() == [[257.0, 257.0]] * 2


def test_load_balance_is_one_in_balance_and_e_at_collapse() -> None:
    balanced = torch.eye(4, dtype=torch.bool).repeat(5, 1)
    assert load_balance(torch.zeros(20, 4), balanced).item() == pytest.approx(1.0)
    collapsed = torch.tensor([[True, False, False, False]]).repeat(20, 1)
    assert load_balance(1e4 * collapsed.float(), collapsed).item() == pytest.approx(4.0)


def test_load_balance_equals_the_formula() -> None:
    logits = normal(30, 5).double()
    mask = race(logits, 2)
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    share = mask.numpy().sum(0) / mask.numpy().sum()
    assert load_balance(logits, mask).item() == pytest.approx(5 * (share * p.mean(0)).sum())


def test_gshard_balance_equals_the_formula() -> None:
    logits = normal(3, 10, 5).double()
    flat = logits.numpy().reshape(-1, 5)
    p = np.exp(flat) / np.exp(flat).sum(1, keepdims=True)
    expected = sum(5 * np.mean([row.argmax() == e for row in flat]) * p[:, e].mean() for e in range(5))
    assert gshard_balance(logits).item() == pytest.approx(expected)


def test_gshard_balance_counts_first_choices_alone() -> None:
    """Everybody's second choice is expert 3: the pairs are out of balance, the first choices are not."""
    logits = 20.0 * torch.eye(3).repeat(4, 1)
    logits = torch.cat([logits, torch.full((12, 1), 10.0)], dim=1)
    assert gshard_balance(logits).item() == pytest.approx(4 / 3, rel=1e-3)
    assert gshard_balance(torch.tensor([[9.0, 0, 0, 0]]).repeat(6, 1)).item() == pytest.approx(4.0, rel=1e-2)


def test_z_loss_equals_the_formula() -> None:
    logits = 3 * normal(2, 7, 5).double()
    expected = (np.log(np.exp(logits.numpy()).sum(-1)) ** 2).mean()
    assert z_loss(logits).item() == pytest.approx(expected)
    assert z_loss(torch.full((1, 3), 1e4)).isfinite()


def test_load_balance_counts_what_tokens_chose_and_not_what_a_capacity_left() -> None:
    """All tokens choose expert 0 first; a capacity of two slots makes what is computed look even."""
    torch.manual_seed(0)
    settings = {"strategy": "token_choice", "gate": "softmax", "router": "linear", "per_layer_regularisation": False}
    router = PooledRouter(MoEConfig(k=1, num_experts=4, capacity_factor=1.0, **settings), 4)
    router.gate_head.weight.data = torch.eye(4)
    x = torch.randn(1, 8, 4) * 0.1 + torch.tensor([3.0, 0.0, 0.0, 0.0])
    output = router(x)
    assert output.mask.sum(1).tolist() == [[2, 0, 0, 0]]
    p = output.logits.double().softmax(-1).mean((0, 1))
    expected = 4 * p[0]  # Switch, eq. 5: f counts the choices, all of them for expert 0
    found = auxiliary_losses([output], ["load_balance"])["load_balance"]
    torch.testing.assert_close(found, expected.float())


def test_load_balance_of_a_mixed_queue_is_that_of_the_choices() -> None:
    """Eight tokens choose expert 0, four expert 1, and each has four slots: computed evenly, not chosen evenly."""
    logits = torch.zeros(1, 12, 2)
    logits[0, :8, 0], logits[0, 8:, 1] = 2.0, 2.0
    chosen = logits > 0
    mask = chosen.clone()
    mask[0, 4:8] = False
    output = RouterOutput(logits, logits, logits, chosen, mask)
    p = logits.softmax(-1).mean((0, 1))
    expected = 2 * (8 / 12 * p[0] + 4 / 12 * p[1])
    torch.testing.assert_close(auxiliary_losses([output], ["load_balance"])["load_balance"], expected)
    assert abs(expected - 2 * (p[0] + p[1]) / 2) > 0.05  # what the mask would give
