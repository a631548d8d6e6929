"""FLOPs against torch's own counter, parameters against a count by hand, and large models that cost no memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
import torch
from pydantic import Field
from torch.utils.flop_counter import FlopCounterMode

from leandit.models import (
    BackboneConfig,
    BackboneOutput,
    Conditioning,
    DiT,
    DiTAirConfig,
    DiTConfig,
    MaskingConfig,
    MMDiTConfig,
    PixArtConfig,
    count_parameters,
    forward_flops,
)
from leandit.moe import BiasedRouterConfig, MoEConfig
from leandit.ops import expert_ffn


def config(**changes: Any) -> DiTConfig:
    small = {"dim": 48, "depth": 3, "heads": 3, "patch_size": 2, "input_size": 16, "channels": 4, "num_classes": 5}
    return DiTConfig(**{**small, "attention_impl": "math", **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learned_sigma": True, "mlp_ratio": 3.0, "qk_norm": True},
        {"moe": MoEConfig(k=2, num_experts=6, per_layer_regularisation=False)},
        {
            "moe": MoEConfig(
                k=3, num_experts=6, hidden_split=2, every=2, num_shared_experts=1, per_layer_regularisation=False
            )
        },
        {"moe": MoEConfig(k=2, num_experts=6, router="linear", per_layer_regularisation=False)},
        {"moe": MoEConfig(k=2, num_experts=6, routing=BiasedRouterConfig())},
        {
            "moe": MoEConfig(
                **{"k": 2, "num_experts": 6, "expert": "swiglu", "num_shared_experts": 2, "shared_split": 4},
                per_layer_regularisation=False,
            )
        },
    ],
    ids=["dense", "learned sigma", "race", "every second", "linear router", "biased router", "swiglu"],
)
def test_flops_equal_torchs_count(changes: dict[str, Any]) -> None:
    """In training the budget is exact."""
    settings = config(**changes)
    model = settings.build().train()
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.randn(2, 4, 16, 16), torch.rand(2), Conditioning(torch.tensor([0, 1])))
    assert forward_flops(settings) == pytest.approx(counter.get_total_flops() / 2, rel=1e-3)


_EXPERT_CHOICE = MoEConfig(
    strategy="expert_choice",
    gate="softmax",
    k=2,
    num_experts=4,
    hidden_split=1,
    every=2,
    router="linear",
    per_layer_regularisation=False,
)
_RACE = MoEConfig(k=2, num_experts=6, per_layer_regularisation=False)
_EC_DIT = {"adaln": "per_layer", "kv_heads": 1, "project_text": False, "time_dim": None}
_TEXT_MODELS: dict[str, BackboneConfig] = {
    "pixart": PixArtConfig(),
    "ec-dit": PixArtConfig(**_EC_DIT),
    "mmdit": MMDiTConfig(),
    "dit-air": DiTAirConfig(),
}


@pytest.mark.parametrize("sharing", ["none", "adaln", "attention", "block"])
@pytest.mark.parametrize("moe", [None, _RACE, _EXPERT_CHOICE], ids=["dense", "race", "expert choice"])
@pytest.mark.parametrize("kind", _TEXT_MODELS)
def test_flops_with_text_equal_torchs_count(kind: str, moe: MoEConfig | None, sharing: str) -> None:
    sizes = {"dim": 48, "depth": 3, "heads": 3, "input_size": 16, "channels": 4, "text_dim": 20, "pooled_dim": 28}
    settings = _TEXT_MODELS[kind].replace(
        **sizes, num_classes=0, sharing=sharing, moe=moe, learned_sigma=True, attention_impl="math"
    )
    model = settings.build().train()
    counter = FlopCounterMode(display=False)
    with counter:
        model(
            torch.randn(2, 4, 16, 16),
            torch.rand(2),
            Conditioning(text=torch.randn(2, 7, 20), pooled=torch.randn(2, 28)),
        )
    assert forward_flops(settings, 7) == pytest.approx(counter.get_total_flops() / 2, rel=1e-3)


@pytest.mark.parametrize("visible_tokens", [None, 32])
@pytest.mark.parametrize("moe", [None, _EXPERT_CHOICE], ids=["dense", "expert choice"])
@pytest.mark.parametrize("kind", ["pixart", "ec-dit"])
def test_flops_with_a_decoder_equal_torchs_count(kind: str, moe: MoEConfig | None, visible_tokens: int | None) -> None:
    sizes = {"dim": 48, "depth": 3, "heads": 3, "input_size": 16, "channels": 4, "text_dim": 20, "pooled_dim": 28}
    masking = MaskingConfig(decoder_depth=2, decoder_dim=32, decoder_heads=2)
    settings = _TEXT_MODELS[kind].replace(
        **sizes, num_classes=0, moe=moe, masking=masking, learned_sigma=True, mlp_ratio=3.0, attention_impl="math"
    )
    model = settings.build().train()
    visible = None if visible_tokens is None else torch.arange(visible_tokens).expand(2, -1)
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.randn(2, 4, 16, 16), torch.rand(2), Conditioning(text=torch.randn(2, 7, 20)), visible)
    assert forward_flops(settings, 7, visible_tokens) == pytest.approx(counter.get_total_flops() / 2, rel=1e-3)


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_what_torchs_counter_is_told_of_experts(activation: str) -> None:
    """At k = E the definition, into which the counter sees, computes the very pairs of the operator."""
    columns = 14 if activation == "swiglu" else 7
    shapes = [(9, 5), (9, 3), (3, 5, columns), (3, columns), (3, 7, 5), (3, 5)]
    x, weight, *weights = (torch.randn(shape, requires_grad=True) for shape in shapes)
    counts = []
    for impl in ("naive", "loop"):
        with FlopCounterMode(display=False) as counter:
            mask = torch.ones(9, 3, dtype=torch.bool)
            expert_ffn(x, weight, mask, *weights, activation=activation, impl=impl).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


class WideMiddleConfig(DiTConfig):
    """A backbone from outside the package: one more layer of its own, and a field that cannot be hashed."""

    table: list[int] = Field(default_factory=list)
    widened: bool = True

    def build(self) -> DiT:
        return WideMiddle(self)


class WideMiddle(DiT):
    """A DiT that maps its input once more, and once again in proportion to the square of its depth if `widened`."""

    def __init__(self, config: WideMiddleConfig) -> None:
        super().__init__(config)
        width = config.depth**2 if config.widened else 1
        self.extra = torch.nn.Linear(4, width, device=self.device)

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> BackboneOutput:
        extra = self.extra(x.transpose(1, 3)).mean(-1)[:, None]
        return super().forward(x + 0 * extra.transpose(2, 3), t, cond)


@pytest.mark.parametrize("widened", [True, False], ids=["depth squared", "depth"])
def test_a_backbone_from_outside_is_counted_without_an_edit(widened: bool) -> None:
    """Its layers follow from shallow models only if its parameters do; else the model itself is counted."""
    settings = WideMiddleConfig(**config(depth=7).model_dump(exclude={"type"}), widened=widened)
    model = settings.build().train()
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.randn(2, 4, 16, 16), torch.rand(2), Conditioning(torch.tensor([0, 1])))
    assert forward_flops(settings) == counter.get_total_flops() // 2


def test_deep_models_follow_from_shallow_ones_exactly() -> None:
    """Also if the depth is no multiple of the period of the layers with experts."""
    for depth in (9, 10):
        settings = config(depth=depth, moe=MoEConfig(k=2, num_experts=4, every=3, per_layer_regularisation=False))
        counter = FlopCounterMode(display=False)
        with counter:
            settings.build().train()(torch.randn(1, 4, 16, 16), torch.rand(1), Conditioning(torch.tensor([0])))
        assert forward_flops(settings) == counter.get_total_flops()


def test_a_large_model_is_counted_fast_and_once() -> None:
    large = config(dim=1152, depth=28, heads=16, input_size=32, moe=MoEConfig(k=4, num_experts=32))
    started = time.process_time()
    first = forward_flops(large)
    counted = time.process_time() - started
    print(f"counted in {counted:.2f} s")
    assert counted < 3  # about 0.2 s on a quiet machine
    started = time.process_time()
    assert forward_flops(large) == first
    assert time.process_time() - started < counted / 10


def test_flops_need_to_know_the_input() -> None:
    with pytest.raises(ValueError, match=r"see BackboneConfig.complete"):
        forward_flops(DiTConfig())


def test_parameters_are_the_matrices_of_the_blocks() -> None:
    """18 d² per dense block; with experts 10 d² + E 8 d²/s, and a router of d² + d E in its place."""
    d, blocks = 48, 3
    dense = count_parameters(config(qk_norm=True))
    assert (dense.total, dense.activated, dense.router) == (18 * d * d * blocks, 18 * d * d * blocks, 0)
    race = count_parameters(config(moe=MoEConfig(k=2, num_experts=6)))
    router = d * d + 6 * d
    assert race.router == blocks * router
    assert race.total == blocks * (10 * d * d + 6 * 8 * d * d // 2 + router)
    assert race.activated == blocks * (18 * d * d + router)


_BUILD = """
import json, re, sys, time
import torch
from pydantic import Field
from leandit import api
start = time.perf_counter()
with torch.device("meta"):
    model = api.create_model(sys.argv[1])
seconds = time.perf_counter() - start
matrices = [p.numel() for name, p in model.blocks.named_parameters()
            if (name.endswith(".weight") or ".experts.w" in name) and "target_head" not in name]
# Not getrusage, whose peak a program inherits from the one that started it.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
print(json.dumps({"seconds": seconds, "peak": peak, "parameters": sum(matrices)}))
"""


@pytest.mark.parametrize(("name", "parameters"), [("RaceDiT-XL/2-4in32", 2.788e9), ("EC-DiT-M-64E", 96.36e9)])
def test_the_largest_models_build_on_the_meta_device_in_little_memory(name: str, parameters: float) -> None:
    command = [sys.executable, "-c", _BUILD, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    measured = json.loads(done.stdout)
    print(f"{name} on meta: {measured['seconds']:.2f} s, {measured['peak'] / 2**20:.0f} MiB at most")
    assert measured["peak"] < 1e9
    assert measured["seconds"] < 2
    assert measured["parameters"] == pytest.approx(parameters, rel=0.005)
