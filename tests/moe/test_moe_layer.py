"""The MoE layer against a loop over tokens and experts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from leandit.moe import STRATEGIES, Experts, MoEConfig, MoELayer


def build(**changes: object) -> MoELayer:
    config = MoEConfig(**{"k": 2, "num_experts": 6, **changes})  # type: ignore[arg-type]
    layer = MoELayer(config, dim=8, hidden=24, target_dim=12)
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return layer.double()


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def routed_expert(p: dict[str, np.ndarray], e: int, token: np.ndarray) -> np.ndarray:
    inner = token @ p["experts.w1"][e]
    if "experts.b1" not in p:  # SwiGLU: the gate's columns, then the others
        width = len(inner) // 2
        return (silu(inner[:width]) * inner[width:]) @ p["experts.w2"][e]
    return gelu(inner + p["experts.b1"][e]) @ p["experts.w2"][e] + p["experts.b2"][e]


def shared_expert(p: dict[str, np.ndarray], index: int, count: int, token: np.ndarray) -> np.ndarray:
    """One of the shared experts: its share of the hidden units. The last bias is common to all."""
    width = len(p["shared_experts.up.weight"]) // count
    units = slice(index * width, (index + 1) * width)
    inner = p["shared_experts.up.weight"][units] @ token
    if "shared_experts.gate.weight" in p:
        inner = silu(p["shared_experts.gate.weight"][units] @ token) * inner
    else:
        inner = gelu(inner + p["shared_experts.up.bias"][units])
    return p["shared_experts.down.weight"][:, units] @ inner


def loop(layer: MoELayer, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Every token with every expert that `mask` gives it, from the layer's weights."""
    p = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    out = np.zeros_like(x)
    for b, l in np.ndindex(x.shape[:2]):
        token = x[b, l]
        hidden = gelu(p["router.hidden.weight"] @ token + p["router.hidden.bias"]) if layer.router.hidden else token
        score = p["router.gate_head.weight"] @ hidden
        for e in np.flatnonzero(mask[b, l]):
            out[b, l] += score[e] * routed_expert(p, e, token)
        for index in range(layer.router.config.num_shared_experts):
            out[b, l] += shared_expert(p, index, layer.router.config.num_shared_experts, token)
        if layer.shared_experts is not None and layer.shared_experts.down.bias is not None:
            out[b, l] += p["shared_experts.down.bias"]
    return out


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equals_the_loop(strategy: str, training: bool) -> None:
    layer = build(strategy=strategy, threshold_init=0.2).train(training)
    x = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y, routing = layer(x)
    assert routing.mask.any()
    assert not routing.mask.all()
    np.testing.assert_allclose(y.detach().numpy(), loop(layer, x.numpy(), routing.mask.numpy()), rtol=1e-9, atol=1e-12)
    if training:
        assert routing.mask.sum() == 3 * 5 * 2


@pytest.mark.parametrize(
    "changes",
    [
        {"num_shared_experts": 1},
        {"num_shared_experts": 3, "shared_split": 4},
        {"router": "linear", "per_layer_regularisation": False},
        {"hidden_split": 1},
        {"k": 6},
        {"expert": "swiglu"},
        {"expert": "swiglu", "hidden_split": 1, "num_shared_experts": 2, "shared_split": 4},
    ],
    ids=str,
)
def test_variants_equal_the_loop(changes: dict[str, object]) -> None:
    layer = build(**changes)
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    y, routing = layer(x)
    np.testing.assert_allclose(y.detach().numpy(), loop(layer, x.numpy(), routing.mask.numpy()), rtol=1e-9, atol=1e-12)


def test_a_token_without_an_expert_gets_nothing() -> None:
    layer = build().eval()
    layer.router.threshold.value.fill_(torch.inf)
    y, _ = layer(torch.randn(2, 3, 8, dtype=torch.float64))
    assert not y.any()


def test_hidden_split_divides_the_dense_width() -> None:
    assert build().experts.w1.shape == (6, 8, 12)  # null: divided by k
    assert build(hidden_split=3).experts.w1.shape == (6, 8, 8)
    assert build(hidden_split=3, expert="swiglu").experts.w1.shape == (6, 8, 16)  # gate and up


@pytest.mark.parametrize(
    ("changes", "width"),
    [
        ({}, 0),
        ({"num_shared_experts": 1}, 12),  # as wide as a routed expert
        ({"num_shared_experts": 1, "hidden_split": 3}, 8),
        ({"num_shared_experts": 2, "hidden_split": 3}, 16),
        ({"num_shared_experts": 2, "hidden_split": 3, "shared_split": 1}, 48),
    ],
    ids=str,
)
def test_shared_experts_stand_side_by_side(changes: dict[str, object], width: int) -> None:
    shared = build(**changes).shared_experts
    assert (0 if shared is None else shared.up.out_features) == width


@pytest.mark.parametrize("expert", ["gelu", "swiglu"])
def test_gradients_reach_every_parameter_through_the_output_and_the_target_head(expert: str) -> None:
    layer = build(num_shared_experts=1, expert=expert)
    y, routing = layer(torch.randn(8, 8, 8, dtype=torch.float64))
    assert routing.target is not None
    assert routing.target.shape == (8, 8, 12)
    y.square().sum().backward()
    without_target = {name for name, p in layer.named_parameters() if p.grad is None or not p.grad.any()}
    assert without_target == {"router.target_head.weight", "router.target_head.bias"}
    layer(torch.randn(8, 8, 8, dtype=torch.float64))[1].target.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())


def test_the_target_head_is_not_computed_in_evaluation() -> None:
    layer = build().eval()
    assert layer.router.target_head is not None
    layer.router.target_head.register_forward_hook(lambda *_: pytest.fail("the target head ran"))
    assert layer(torch.randn(2, 3, 8, dtype=torch.float64))[1].target is None


def test_an_empty_batch_passes() -> None:
    for training in (True, False):
        assert build().train(training)(torch.empty(0, 5, 8, dtype=torch.float64))[0].shape == (0, 5, 8)


def test_the_gradient_of_gated_experts_equals_finite_differences() -> None:
    experts = Experts(3, 4, 5, gated=True).double()
    experts.init_weights()
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    mask = torch.tensor([[True, False, True]]).expand(6, 3).clone()  # the second expert has no token
    mask[4] = False

    def run(x: torch.Tensor, weight: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(experts, {"w1": w1, "w2": w2}, (x, weight, mask, None))

    assert torch.autograd.gradcheck(run, (x, weight, experts.w1, experts.w2))


@pytest.mark.parametrize("gated", [False, True])
def test_experts_are_initialised_each_like_a_dense_layer(gated: bool) -> None:
    experts = Experts(32, 16, 48, gated)
    for parameter in experts.parameters():
        nn.init.constant_(parameter, torch.nan)
    experts.init_weights()
    bound = (6 / 64) ** 0.5
    for weight in (experts.w1, experts.w2):
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    biases = [bias for bias in (experts.b1, experts.b2) if bias is not None]
    assert len(biases) == (0 if gated else 2)
    assert not any(bias.any() for bias in biases)
