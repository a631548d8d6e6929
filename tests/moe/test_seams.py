"""The seams from outside: a dispatcher that sorts rows, a selector of one's own, a router of one's own, its input."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from leandit.api import train
from leandit.errors import LeanDiTError
from leandit.moe import (
    ROUTERS,
    STRATEGIES,
    BiasedRouter,
    Dispatcher,
    ExpertRows,
    MoEConfig,
    MoELayer,
    PooledRouter,
    RouterConfig,
    RouterModule,
    RouterOutput,
    RouterStats,
    Selector,
    routers,
    select_mask,
)
from leandit.nn import Linear
from leandit.presets import run_config
from leandit.sampling import load, sample

pytestmark = pytest.mark.usefixtures("no_figures")


def build(**changes: object) -> MoELayer:
    torch.manual_seed(0)
    start = {} if "routing" in changes else {"threshold_init": 0.1}
    config = MoEConfig(**{"k": 2, "num_experts": 6, **start, **changes})
    return MoELayer(config, dim=8, hidden=24, target_dim=12).double()


def dispatch(x_TD: Tensor, weight_TE: Tensor, mask_TE: Tensor, pairs: int | None, rows: ExpertRows) -> Tensor:
    """Sort pairs by expert, compute rows with two of padding, and multiply the weights after they have come back."""
    expert_P, token_P = mask_TE.T.nonzero(as_tuple=True)
    assert pairs is None or len(token_P) <= pairs
    ends_E = mask_TE.sum(0).cumsum(0)
    y_RD = rows(torch.cat([x_TD[token_P], x_TD.new_zeros(2, x_TD.shape[1])]), ends_E)
    y_PD = y_RD[: len(token_P)] * weight_TE[token_P, expert_P][:, None]
    return torch.zeros_like(x_TD).index_add(0, token_P, y_PD)


@pytest.mark.parametrize("impl", ["naive", "loop"])
@pytest.mark.parametrize("expert", ["gelu", "swiglu"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_local_dispatcher_is_the_fused_operator(strategy: str, training: bool, expert: str, impl: str) -> None:
    layer = build(strategy=strategy, expert=expert, impl=impl, num_shared_experts=1).train(training)
    x = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    parameters = [x, *(p for name, p in layer.named_parameters() if "target_head" not in name)]
    results = []
    for dispatcher in (None, dispatch):
        layer.dispatcher = dispatcher
        y, _ = layer(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), parameters)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("impl", ["naive", "loop"])
def test_a_local_dispatcher_with_empty_experts(impl: str) -> None:
    layer = build(strategy="token_choice", impl=impl)
    layer.router.selector = lambda scores, /, **_: (torch.tensor([0, 1, 0, 0, 1, 0]).bool().expand(scores.shape), None)
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    fused, _ = layer(x)
    layer.dispatcher = dispatch
    moved, routing = layer(x)
    assert routing.mask.sum((0, 1)).tolist() == [0, 15, 0, 0, 15, 0]
    parameters = [x, *layer.experts.parameters()]
    results = [(y, *torch.autograd.grad(y.square().sum(), parameters)) for y in (fused, moved)]
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tokens", [0, 4])
def test_a_dispatcher_without_any_pair(tokens: int) -> None:
    layer = build(threshold_init=1e9).eval()
    layer.dispatcher = dispatch
    x = torch.randn(2, tokens, 8, dtype=torch.float64, requires_grad=True)
    y, routing = layer(x)
    assert not routing.mask.any()
    assert y.shape == x.shape
    assert not y.any()
    y.sum().backward()
    assert not layer.experts.w1.grad.any()


def test_the_protocols_hold() -> None:
    assert isinstance(dispatch, Dispatcher)
    assert isinstance(select_mask, Selector)
    assert isinstance(build().router, RouterModule)
    assert isinstance(build(routing={"type": "biased"}).router, RouterModule)


@pytest.mark.parametrize("changes", [{}, {"strategy": "le_choice"}, {"routing": {"type": "biased"}}], ids=str)
def test_a_selector_from_outside_runs_the_race(changes: dict[str, object]) -> None:
    layer = build(**changes)
    calls = []

    def first_experts(
        scores: Tensor, /, *, strategy: str, k: int, group_tokens: int | None = None
    ) -> tuple[Tensor, Tensor]:
        calls.append(strategy)
        mask = torch.arange(scores.shape[-1]).expand(scores.shape) < k
        return mask, scores[mask].min()[None]

    layer.router.selector = first_experts
    _, routing = layer(torch.randn(2, 3, 8, dtype=torch.float64))
    assert calls == [changes.get("strategy", "token_choice" if "routing" in changes else "expert_race")]
    assert torch.equal(routing.mask, (torch.arange(6) < 2).expand(2, 3, 6))


@ROUTERS.register
class RoundRobinConfig(RouterConfig):
    """Token t goes to experts t, t + 1, ..., whatever it is: a router from outside the package, in one piece."""

    type: Literal["test_round_robin"] = "test_round_robin"
    first: int = 0

    def build(self, moe: MoEConfig, in_dim: int, dim: int, target_dim: int | None) -> RouterModule:
        return RoundRobin(self.first, moe, in_dim)


class RoundRobin(RouterModule):
    steps: Tensor

    def __init__(self, first: int, moe: MoEConfig, in_dim: int) -> None:
        super().__init__()
        self.first, self.k = first, moe.k
        self.gate_head = Linear(in_dim, moe.num_experts)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> RouterOutput:
        logits = self.gate_head(x)
        token, expert = torch.arange(x.shape[1])[:, None], torch.arange(logits.shape[-1])
        chosen = ((expert - token - self.first) % logits.shape[-1] < self.k).expand(logits.shape)
        return RouterOutput(logits, logits.sigmoid(), logits.sigmoid(), chosen, chosen)

    def after_step(self, stats: RouterStats) -> None:
        self.steps += 1

    def init_weights(self) -> None:
        self.steps.zero_()


@pytest.mark.parametrize(
    ("kind", "option", "router"),
    [("test_round_robin", "first=1", RoundRobin), ("biased", "bias_rate=0.5", BiasedRouter)],
)
def test_a_router_by_its_name_trains_saves_and_samples(
    kind: str, option: str, router: type[RouterModule], tmp_path: Path
) -> None:
    overrides = [f"model.moe.routing.type={kind}", f"model.moe.routing.{option}", "losses.per_layer_regularisation=0"]
    assert train(run_config("tiny", [*overrides, "train.steps=3", "train.sample_every=3"]), tmp_path / "run") == 0
    run = load(tmp_path / "run")
    found = [module for _, module in routers(run.model)]
    assert [type(module) for module in found] == [router, router]
    for module in found:
        if isinstance(module, RoundRobin):
            assert module.first == 1
            assert module.steps == 3
        else:
            assert set(module.bias.abs().tolist()) <= {0.0, 0.5, 1.0, 1.5}
            assert module.bias.any()
    assert sample(run, [0], [0]).shape[0] == 1


def test_a_router_without_a_target_head_cannot_be_regularised() -> None:
    with pytest.raises(LeanDiTError, match="this router has none, set losses"):
        run_config("tiny", ["model.moe.routing.type=biased"])


@pytest.mark.parametrize("changes", [{}, {"router": "linear", "per_layer_regularisation": False}], ids=str)
def test_the_router_sees_what_the_config_says_and_experts_the_modulated_token(changes: dict[str, object]) -> None:
    x, plain = (torch.randn(2, 5, 8, dtype=torch.float64) for _ in range(2))
    time = torch.randn(2, 8, dtype=torch.float64)
    joined = torch.cat([torch.stack([time] * 5, 1), plain], -1)
    for router_input, seen in (("modulated", x), ("plain", plain), ("plain+time", joined)):
        layer = build(router_input=router_input, **changes)
        y, routing = layer(x, plain, time)
        router = layer.router
        alone = PooledRouter(router.config, 8, 12).double()
        alone.load_state_dict(router.state_dict())
        assert torch.equal(routing.logits, alone(seen).logits)
        expected = layer.experts(x.reshape(10, 8), routing.weights.reshape(10, 6), routing.mask.reshape(10, 6), None)
        assert torch.equal(y, expected.reshape(x.shape))


@pytest.mark.parametrize(
    ("router_input", "given", "missing"), [("plain", {}, "plain"), ("plain+time", {"plain"}, "time")]
)
def test_a_missing_input_is_named(router_input: str, given: set[str], missing: str) -> None:
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    with pytest.raises(LeanDiTError, match=f"call the layer with {missing}="):
        build(router_input=router_input)(x, **dict.fromkeys(given, x))


def test_a_biased_router_sees_the_time_too() -> None:
    layer = build(router_input="plain+time", routing={"type": "biased"})
    assert layer.router.gate_head.weight.shape == (6, 16)
    x, time = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 8, dtype=torch.float64)
    other = layer(x, x, time + 1)[1].logits
    assert not torch.equal(layer(x, x, time)[1].logits, other)


def test_a_capacity_leaves_what_was_chosen_as_it_was() -> None:
    capacity = {"strategy": "token_choice", "gate": "softmax", "capacity_factor": 0.5}
    _, routing = build(**capacity)(torch.randn(2, 12, 8, dtype=torch.float64))
    assert (routing.chosen.sum(-1) == 2).all()
    assert routing.mask.sum() < routing.chosen.sum()
    assert not (routing.mask & ~routing.chosen).any()


@pytest.mark.parametrize(
    "changes", [{}, {"expert": "swiglu", "num_shared_experts": 1}, {"routing": {"type": "biased"}}]
)
def test_a_layer_built_alone_is_initialised(changes: dict[str, object]) -> None:
    config = MoEConfig(**{"k": 2, "num_experts": 4, **changes})
    layer, other = MoELayer(config, 16, 64), MoELayer(config, 16, 64)
    assert not torch.equal(layer.experts.w1, other.experts.w1)
    assert getattr(layer.router, "target_head", None) is None
    y, _ = layer(torch.randn(2, 8, 16))
    assert y.isfinite().all()
    assert 0.05 < y.std() < 10
    with torch.device("meta"):
        empty = MoELayer(config, 16, 64)
    empty.to_empty(device="cpu").init_weights()
    assert all(value.isfinite().all() for value in empty.state_dict().values())
