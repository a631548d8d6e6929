"""Compile small models and compare them with themselves. Its own program: type checks of tests break torch's graphs.

python compile_models.py BACKEND CELL...     (a cell is backbone:strategy, with "dense" for no experts)
"""

from __future__ import annotations

import importlib
import sys

import torch
from torch import Tensor, nn

from leandit.models import Backbone, Conditioning, DiTAirConfig, DiTConfig, MMDiTConfig, PixArtConfig
from leandit.moe import MoEConfig

KINDS = {"dit": DiTConfig, "pixart": PixArtConfig, "mmdit": MMDiTConfig, "dit_air": DiTAirConfig}
GEOMETRY = {"dim": 32, "depth": 2, "heads": 2, "patch_size": 2, "input_size": (4, 16), "channels": 3}
TEXT = {"num_classes": 0, "text_dim": 10, "pooled_dim": 7}
BATCH = 4
TOLERANCE = {"aot_eager": 1e-6, "inductor": 1e-4}


def build(kind: str, strategy: str) -> Backbone:
    config = KINDS[kind]
    moe = None if strategy == "dense" else MoEConfig(strategy=strategy, k=2, num_experts=4, threshold_init=0.0)
    torch.manual_seed(0)
    model = config(**GEOMETRY, **(TEXT if config.conditions_on_text else {"num_classes": 3}), moe=moe).build()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def inputs(model: Backbone, scale: float) -> tuple[Tensor, Tensor, Conditioning]:
    x, t = scale * torch.randn(BATCH, 3, 4, 16), torch.rand(BATCH)
    if not model.config.conditions_on_text:
        return x, t, Conditioning(torch.arange(BATCH) % 3)
    mask = torch.arange(5) < torch.tensor([5, 2, 1, 4])[:, None]
    return x, t, Conditioning(text=torch.randn(BATCH, 5, 10), text_mask=mask, pooled=torch.randn(BATCH, 7))


def results(model: Backbone, call: nn.Module, given: tuple[Tensor, Tensor, Conditioning]) -> list[Tensor]:
    """Return the prediction in training, all gradients, and the prediction in evaluation."""
    model.train()
    model.zero_grad()
    prediction = call(*given).prediction
    prediction.float().square().sum().backward()
    # Of what no loss reads the gradient is None, or from a compiled graph zero.
    gradients = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in model.parameters()]
    model.eval()
    with torch.no_grad():
        return [prediction.detach(), *gradients, call(*given).prediction]


def check(backend: str, kind: str, strategy: str, bf16: bool) -> None:
    torch._dynamo.reset()
    model = build(kind, strategy)
    compiled = torch.compile(model, fullgraph=True, backend=backend, dynamic=False)
    tolerance = 0.05 if bf16 else TOLERANCE[backend]
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        given = inputs(model, 1.0)
        pairs = zip(results(model, model, given), results(model, compiled, given), strict=True)
        for number, (expected, got) in enumerate(pairs):
            error = float((got.float() - expected.float()).norm() / (expected.float().norm() + 1e-12))
            assert error <= tolerance, f"{kind} {strategy}, result {number}: {error}"
        compilations = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        with torch.no_grad():  # with thresholds, inputs of another size have another number of pairs
            for scale in (0.1, 3.0, 10.0):
                compiled(*inputs(model, scale))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compilations, f"{kind} {strategy} compiled again"


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Compiled linear maps are torch's own, by another library: the same one on both sides shows that all else agrees.
    importlib.import_module("leandit.ops.linear")._HAS_ONEDNN = False
    for cell in sys.argv[2:]:
        kind, strategy, precision = cell.split(":")
        check(sys.argv[1], kind, strategy, precision == "bf16")
