"""Compile small models and compare them with themselves. Its own program: type checks of tests break torch's graphs.

Each line of stdin is a cell, backend:backbone:strategy:precision; each line of stdout is its error as JSON, or null.

The strategy "dense" is a model without experts, "biased" one with the biased router. The backbone "layer" is a MoE
layer alone, with several batch sizes.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback

import torch
from torch import Tensor, nn

from leandit.models import (
    Backbone,
    Conditioning,
    DiTAirConfig,
    DiTConfig,
    MMDiTConfig,
    PixArtConfig,
    compile_layers,
    recompute_layers,
)
from leandit.moe import BiasedRouterConfig, MoEConfig, MoELayer

KINDS = {"dit": DiTConfig, "pixart": PixArtConfig, "mmdit": MMDiTConfig, "dit_air": DiTAirConfig}
GEOMETRY = {"dim": 32, "depth": 4, "heads": 2, "patch_size": 2, "input_size": (4, 16), "channels": 3}
TEXT = {"num_classes": 0, "text_dim": 10, "pooled_dim": 7}
BATCH = 4
TOLERANCE = {"eager": 1e-6, "aot_eager": 1e-6, "inductor": 1e-4}


def experts(strategy: str) -> MoEConfig:
    if strategy == "biased":
        return MoEConfig(k=2, num_experts=4, routing=BiasedRouterConfig(num_groups=2))
    factor = 1.5 if strategy == "expert_choice" else None
    return MoEConfig(strategy=strategy, k=2, num_experts=4, threshold_init=0.0, capacity_factor=factor)


def build(kind: str, strategy: str) -> Backbone:
    config = KINDS[kind]
    moe = None if strategy == "dense" else experts(strategy)
    torch.manual_seed(0)
    model = config(**GEOMETRY, **(TEXT if config.conditions_on_text else {"num_classes": 3}), moe=moe).build()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def inputs(model: Backbone, scale: float, batch: int = BATCH) -> tuple[Tensor, Tensor, Conditioning]:
    x, t = scale * torch.randn(batch, 3, 4, 16), torch.rand(batch)
    if not model.config.conditions_on_text:
        return x, t, Conditioning(torch.arange(batch) % 3)
    mask = torch.arange(5) < torch.tensor([5, 2, 1, 4])[:, None]
    return x, t, Conditioning(text=torch.randn(BATCH, 5, 10), text_mask=mask, pooled=torch.randn(BATCH, 7))


def results(model: Backbone, given: tuple[Tensor, Tensor, Conditioning]) -> list[Tensor]:
    """Return the prediction in training, all gradients, and the prediction in evaluation."""
    model.train()
    model.zero_grad()
    prediction = model(*given).prediction
    prediction.float().square().sum().backward()
    # Of what no loss reads the gradient is None, or from a compiled graph zero.
    gradients = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in model.parameters()]
    model.eval()
    with torch.no_grad():
        return [prediction.detach(), *gradients, model(*given).prediction]


def check_sizes(backend: str, strategy: str) -> None:
    """A second batch size makes the size symbolic, in training and in evaluation; a third one compiles nothing."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    layer = MoELayer(experts(strategy), dim=8, hidden=16, target_dim=12)
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for batch in (4, 6, 8):
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        x = torch.randn(batch, 5, 8, requires_grad=True)
        for training in (True, False):
            layer.train(training)
            with torch.set_grad_enabled(training):
                outputs = [call(x)[0] for call in (layer, compiled)]
            torch.testing.assert_close(outputs[1], outputs[0])
            if training:
                expected, got = (torch.autograd.grad(y.square().sum(), (x, layer.experts.w1)) for y in outputs)
                torch.testing.assert_close(got, expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before, f"{strategy} compiled again"


def check(backend: str, kind: str, strategy: str, bf16: bool, recompute: bool) -> None:
    torch._dynamo.reset()
    model = build(kind, strategy)
    recompute_layers(model, recompute)
    tolerance = 0.05 if bf16 else TOLERANCE[backend]
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        given = inputs(model, 1.0)
        plain = results(model, given)
        compile_layers(model, backend)
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        pairs = zip(plain, results(model, given), strict=True)
        for number, (expected, got) in enumerate(pairs):
            error = float((got.float() - expected.float()).norm() / (expected.float().norm() + 1e-12))
            assert error <= tolerance, f"{kind} {strategy}, result {number}: {error}"
        compilations = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        # One graph for all layers in training and one in evaluation. With text, the last layer, which leaves it alone,
        # has its own, and in training the first one, too, whose text comes from elsewhere.
        most = 5 if kind in ("mmdit", "dit_air") else 2
        assert 2 <= compilations - before <= most, f"{kind} {strategy}: {compilations - before} graphs"
        with torch.no_grad():  # with thresholds, inputs of another size have another number of pairs
            for scale in (0.1, 3.0, 10.0):
                model(*inputs(model, scale))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compilations, f"{kind} {strategy} compiled again"


def error_of(cell: str) -> str | None:
    """Return what is wrong with a cell, or None."""
    backend, kind, strategy, precision = cell.split(":")
    try:
        if kind == "layer":
            check_sizes(backend, strategy)
        else:
            check(backend, kind, strategy.removesuffix("+recompute"), precision == "bf16", "+recompute" in strategy)
    except Exception:
        return traceback.format_exc()
    return None


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Compiled linear maps are torch's own, by another library: the same one on both sides shows that all else agrees.
    importlib.import_module("leandit.ops.onednn")._HAS_ONEDNN = False
    for line in sys.stdin:
        print(json.dumps(error_of(line.strip())), flush=True)
