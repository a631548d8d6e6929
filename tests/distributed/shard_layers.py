"""Shard every layer over two processes, and compare the gradients with those of one process. Its own program.

python shard_layers.py RANK WORLD FILE     (FILE is where the processes find each other)
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from leandit.models import (
    Backbone,
    Conditioning,
    DiTAirConfig,
    DiTConfig,
    MaskingConfig,
    MMDiTConfig,
    PixArtConfig,
    recompute_layers,
)
from leandit.moe import MoEConfig

SIZES: dict[str, Any] = {"dim": 32, "depth": 3, "heads": 2, "patch_size": 2, "input_size": 8, "channels": 3}
TEXT = {"num_classes": 0, "text_dim": 10, "pooled_dim": 7}
SHARING = ("none", "adaln", "attention", "block")
CELLS = [(kind, sharing, {}) for kind in (DiTConfig, PixArtConfig, MMDiTConfig, DiTAirConfig) for sharing in SHARING]
CELLS += [
    (PixArtConfig, "none", {"adaln": "per_layer"}),
    (PixArtConfig, "none", {"masking": MaskingConfig(decoder_depth=2, decoder_dim=16, decoder_heads=2)}),
]


def build(kind: Any, sharing: str, extra: dict[str, Any]) -> Backbone:
    moe = MoEConfig(
        strategy="le_choice", k=2, num_experts=4, every=2
    )  # a competition in each sample, whatever the rank
    fields = {**SIZES, **(TEXT if kind.conditions_on_text else {"num_classes": 3})}
    torch.manual_seed(0)
    model = kind(**fields, sharing=sharing, moe=moe, **extra).build()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def inputs(model: Backbone, batch: int) -> tuple[Tensor, Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(batch, 3, 8, 8, generator=generator), torch.rand(batch, generator=generator)
    if not model.config.conditions_on_text:
        return x, t, Conditioning(torch.arange(batch) % 3)
    text, pooled = torch.randn(batch, 5, 10, generator=generator), torch.randn(batch, 7, generator=generator)
    return x, t, Conditioning(text=text, pooled=pooled)


def backward(model: Backbone, given: tuple[Tensor, Tensor, Conditioning]) -> None:
    output = model(*given)
    loss = output.prediction.square().mean()
    for router in output.routers:
        loss = loss + router.logits.square().mean() + (0 if router.target is None else router.target.square().mean())
    loss.backward()


def check(kind: Any, sharing: str, extra: dict[str, Any], recompute: bool, rank: int, world: int) -> None:
    name = f"{kind.__name__} {sharing} {extra} recompute={recompute}"
    whole, sharded = build(kind, sharing, extra), build(kind, sharing, extra)
    x, t, cond = inputs(whole, 2 * world)
    backward(whole, (x, t, cond))
    expected = {key: p.grad for key, p in whole.named_parameters()}
    recompute_layers(sharded, recompute)
    for layer in sharded.layers:
        fully_shard(layer)
    fully_shard(sharded)
    mine = slice(2 * rank, 2 * rank + 2)
    backward(sharded, (x[mine], t[mine], cond.map(lambda part: part[mine])))
    for key, parameter in sharded.named_parameters():
        assert isinstance(parameter, DTensor), f"{name}: {key} is not sharded"
        found = None if parameter.grad is None else parameter.grad.full_tensor()
        if found is None or expected[key] is None:
            # What no loss reads has no gradient, or zeros.
            assert all(value is None or not value.any() for value in (found, expected[key])), f"{name}: {key}"
            continue
        error = float((found - expected[key]).norm() / (expected[key].norm() + 1e-9))
        assert error < 1e-6 or float((found - expected[key]).abs().max()) < 1e-8, f"{name}: {key} is off by {error}"


if __name__ == "__main__":
    rank, world, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    for cell in CELLS:
        check(*cell, recompute=False, rank=rank, world=world)
    check(DiTConfig, "none", {}, recompute=True, rank=rank, world=world)
    dist.destroy_process_group()
