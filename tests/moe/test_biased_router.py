"""The biased router against loops over tokens, experts and groups, and what its bias does to a skewed load."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from leandit.moe import BiasedRouter, MoEConfig, MoELayer, after_step, max_violation, router_stats

DIM, HIDDEN = 6, 8
ROUTING = ("gate", "bias_rate", "renormalize", "route_scale", "num_groups", "top_groups")


def configure(**changes: object) -> MoEConfig:
    """2 of 6 experts; fields of the router's go to it."""
    routing = {"type": "biased", **{key: changes.pop(key) for key in list(changes) if key in ROUTING}}
    return MoEConfig(**{"k": 2, "num_experts": 6, "hidden_split": 2, "routing": routing, **changes})


def build(**changes: object) -> MoELayer:
    """A layer in float64 with a bias that matters."""
    config = configure(**changes)
    torch.manual_seed(0)
    layer = MoELayer(config, DIM, HIDDEN).double()
    with torch.no_grad():
        layer.router.bias.copy_(0.3 * torch.randn(config.num_experts))
    return layer


def dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([p * q for p, q in zip(a, b, strict=True)]).sum()


def scores_of(logits: list[Tensor], gate: str) -> list[Tensor]:
    if gate == "sigmoid":
        return [1 / (1 + (-logit).exp()) for logit in logits]
    total = torch.stack([logit.exp() for logit in logits]).sum()
    return [logit.exp() / total for logit in logits]


def chosen_of(biased: list[float], k: int, num_groups: int, top_groups: int) -> list[int]:
    """The k best experts of the groups whose two best members add up to most; earlier ones among equals."""
    size = len(biased) // num_groups
    groups = [biased[size * group : size * (group + 1)] for group in range(num_groups)]
    order = sorted(range(num_groups), key=lambda group: (-sum(sorted(groups[group])[-2:]), group))
    allowed = [e for e in range(len(biased)) if e // size in order[:top_groups]]
    return sorted(allowed, key=lambda e: (-biased[e], e))[:k]


def expert_of(layer: MoELayer, e: int, x: Tensor) -> Tensor:
    w1, w2, b1, b2 = layer.experts.w1[e], layer.experts.w2[e], layer.experts.b1, layer.experts.b2
    inner = [dot(w1[:, column], x) + (0 if b1 is None else b1[e, column]) for column in range(w1.shape[1])]
    if b1 is None:
        half = len(inner) // 2
        hidden = [a / (1 + (-a).exp()) * b for a, b in zip(inner[:half], inner[half:], strict=True)]
    else:
        hidden = [0.5 * a * (1 + (math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)).tanh()) for a in inner]
    out = [dot(w2[:, column], torch.stack(hidden)) for column in range(w2.shape[1])]
    return torch.stack(out) + (0 if b2 is None else b2[e])


def restated(layer: MoELayer, x: Tensor, config: MoEConfig) -> tuple[Tensor, list[list[int]]]:
    """The layer's output, and which experts each token has, from the formulas of the docstring."""
    routing = config.routing.model_dump()
    rows, experts = [], []
    for token in x.flatten(0, 1):
        logits = [dot(layer.router.gate_head.weight[e], token) for e in range(config.num_experts)]
        scores = scores_of(logits, routing["gate"])
        biased = [s.item() + b.item() for s, b in zip(scores, layer.router.bias, strict=True)]
        chosen = chosen_of(biased, config.k, routing["num_groups"], routing["top_groups"])
        total = sum(scores[e] for e in chosen) if routing["renormalize"] and config.k > 1 else 1
        parts = [routing["route_scale"] * scores[e] / total * expert_of(layer, e, token) for e in chosen]
        row = torch.stack(parts).sum(0)
        if layer.shared_experts is not None:
            row = row + layer.shared_experts(token)
        rows.append(row)
        experts.append(chosen)
    return torch.stack(rows).reshape(x.shape), experts


CASES: list[dict[str, object]] = [
    {},
    {"gate": "softmax", "renormalize": False},
    {"route_scale": 2.5, "num_groups": 3, "top_groups": 2, "k": 3},
    {"num_groups": 2, "top_groups": 1, "expert": "swiglu", "num_shared_experts": 1, "route_scale": 0.5},
    {"num_groups": 6, "top_groups": 3},  # groups of one expert
    {"k": 1},
    {"k": 6},
    {"num_experts": 1, "k": 1},
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("changes", CASES, ids=str)
def test_a_layer_equals_its_restatement_with_all_gradients(changes: dict[str, object], training: bool) -> None:
    layer = build(**changes).train(training)
    config = configure(**changes)
    x = torch.randn(2, 4, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    y, routing = layer(x)
    expected, experts = restated(layer, x, config)
    assert [row.nonzero()[:, 0].tolist() for row in routing.mask.flatten(0, 1)] == [sorted(row) for row in experts]
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parameters = [x, *layer.parameters()]
    mine, theirs = (
        torch.autograd.grad((out * direction).sum(), parameters, allow_unused=True, materialize_grads=True)
        for out in (y, expected)
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    assert layer.router.most_pairs(8) == int(routing.mask.sum())


def test_the_bias_decides_the_selection_and_not_the_weights() -> None:
    layer = build(renormalize=False)
    x = torch.randn(3, 5, DIM, dtype=torch.float64)
    with torch.no_grad():
        layer.router.bias.copy_(torch.tensor([9.0, 9, 0, 0, 0, 0]))
    routing = layer.router(x)
    assert routing.chosen[..., :2].all()
    assert not routing.chosen[..., 2:].any()
    assert torch.equal(routing.weights, routing.logits.sigmoid())
    assert routing.cutoff is None
    assert routing.target is None


def test_the_bias_moves_once_a_step_by_the_sign_of_the_load_and_forward_changes_nothing() -> None:
    layer = build(bias_rate=0.25)
    x = torch.randn(4, 5, DIM, dtype=torch.float64)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    _, routing = layer(x)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    load = routing.mask.sum((0, 1)).double()
    after_step(layer, router_stats([routing], 1))
    steps = torch.tensor([0.25 if pairs < load.mean() else -0.25 if pairs > load.mean() else 0.0 for pairs in load])
    expected = before["router.bias"] + steps
    torch.testing.assert_close(layer.state_dict()["router.bias"], expected)
    layer.init_weights()
    assert not layer.router.bias.any()


def test_a_rate_of_zero_leaves_the_bias() -> None:
    layer = build(bias_rate=0)
    before = layer.router.bias.clone()
    after_step(layer, router_stats([layer(torch.randn(4, 5, DIM, dtype=torch.float64))[1]], 1))
    assert torch.equal(layer.router.bias, before)


@pytest.mark.parametrize("groups", [{}, {"num_groups": 4, "top_groups": 2}], ids=["all experts", "groups"])
def test_the_bias_evens_out_a_skewed_load_in_200_steps(groups: dict[str, int]) -> None:
    torch.manual_seed(0)
    config = MoEConfig(k=2, num_experts=8, routing={"type": "biased", "bias_rate": 0.002, **groups})
    layer = MoELayer(config, 16, 32)
    with torch.no_grad():  # the first experts like what all tokens have in common, the last ones dislike it
        layer.router.gate_head.weight[:, 0] = torch.linspace(1.0, -1.0, 8)
    generator = torch.Generator().manual_seed(1)

    def batch() -> Tensor:
        x = torch.randn(8, 64, 16, generator=generator)
        x[..., 0] = 1
        return x

    def violation() -> float:
        return max_violation(router_stats([layer.router(batch()) for _ in range(20)], 1)[0].load)

    assert violation() > 1.2
    for _ in range(200):
        after_step(layer, router_stats([layer.router(batch())], 1))
    assert violation() < 0.1


def test_logits_stay_in_fp32_under_autocast() -> None:
    router = BiasedRouter(MoEConfig(routing={"type": "biased"}).routing, MoEConfig(), DIM)
    router.gate_head.init_weights()
    with torch.autocast("cpu", torch.bfloat16):
        output = router(torch.randn(2, 3, DIM))
    assert output.logits.dtype == output.weights.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"routing": {"type": "biased", "top_groups": 2}}, "top_groups = 2 is more than num_groups = 1"),
        ({"routing": {"type": "biased", "num_groups": 5}}, "num_experts = 32 is not divisible by num_groups = 5"),
        ({"routing": {"type": "biased", "num_groups": 16}}, "k = 4 is more than the 2 experts of 1 groups"),
        (
            {"routing": {"type": "biased"}, "strategy": "bl_choice", "gate": "softmax"},
            "set strategy=expert_race, gate=identity",
        ),
        ({"routing": {"type": "biassed"}}, "biassed"),
        ({"routing": {"type": "biased", "rate": 1}}, "rate"),
    ],
    ids=str,
)
def test_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MoEConfig(**changes)


def test_a_config_survives_plain_data() -> None:
    config = MoEConfig(k=8, num_experts=128, routing={"type": "biased", "route_scale": 2.5})
    assert MoEConfig.model_validate(config.model_dump(mode="json")) == config
    assert config.replace(k=4).routing == config.routing
    assert not config.has_target_head
    assert MoEConfig().has_target_head
