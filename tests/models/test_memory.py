"""The memory of a training step, counted without running it, against what torch's allocator really gives out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from contest import peak_memory_on_cpu
from leandit.models import (
    BackboneConfig,
    Conditioning,
    DiTAirConfig,
    DiTConfig,
    MaskingConfig,
    MMDiTConfig,
    PixArtConfig,
    memory,
    recompute_layers,
)
from leandit.models.memory import training_memory
from leandit.moe import MoEConfig

SIZES: dict[str, Any] = {"dim": 48, "depth": 3, "heads": 3, "input_size": 16, "channels": 4}
TEXT: dict[str, Any] = {**SIZES, "num_classes": 0, "text_dim": 32, "pooled_dim": 32}
LABELS: dict[str, Any] = {**SIZES, "num_classes": 10}
RACE = MoEConfig(k=2, num_experts=8)
MODELS: dict[str, tuple[BackboneConfig, dict[str, Any]]] = {
    "dense": (DiTConfig(**LABELS), {}),
    "bf16": (DiTConfig(**LABELS), {"bf16": True}),
    "checkpointing": (DiTConfig(**LABELS), {"activation_checkpointing": True}),
    "race": (DiTConfig(**LABELS, moe=RACE), {}),
    "race in bf16": (DiTConfig(**LABELS, moe=RACE), {"bf16": True}),
    "dit-air": (DiTAirConfig(**TEXT, moe=RACE, sharing="attention"), {"bf16": True}),
    "mmdit": (MMDiTConfig(**TEXT), {}),
    "pixart": (PixArtConfig(**TEXT), {}),
    "hidden tokens": (PixArtConfig(**TEXT, masking=MaskingConfig(decoder_dim=48, decoder_heads=3)), {"visible": 32}),
}


def allocated(config: BackboneConfig, batch: int, bf16: bool, checkpointing: bool, visible: int | None) -> int:
    """Bytes that a real step with AdamW and a moving average has at its height."""
    model = config.build().train()
    recompute_layers(model, checkpointing)
    if config.conditions_on_text:
        cond = Conditioning(text=torch.randn(batch, 16, 32), pooled=torch.randn(batch, 32))
    else:
        cond = Conditioning(torch.zeros(batch, dtype=torch.long))
    given: dict[str, Any] = {"x": torch.randn(batch, 4, 16, 16), "t": torch.rand(batch), "cond": cond}
    if visible:
        given["visible"] = torch.arange(visible).expand(batch, -1)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = model(**given)
        targets = [router.target.float().square().mean() for router in output.routers if router.target is not None]
        torch.stack([output.prediction.float().square().mean(), *targets]).sum().backward()

    # Besides: weights, two moments, average.
    return peak_memory_on_cpu(step) + 4 * 4 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_estimate_is_within_a_tenth_of_what_is_allocated(name: str) -> None:
    config, options = MODELS[name]
    bf16, checkpointing = options.get("bf16", False), options.get("activation_checkpointing", False)
    visible = options.get("visible")
    estimate = training_memory(
        config, 8, bf16=bf16, activation_checkpointing=checkpointing, text_tokens=16, visible_tokens=visible
    )
    assert estimate == pytest.approx(allocated(config, 8, bf16, checkpointing, visible), rel=0.1)


def test_moments_and_pictures_cost_what_they_are() -> None:
    config = DiTConfig(**LABELS)
    parameters = sum(p.numel() for p in config.build().parameters())
    with_one, with_two = (training_memory(config, 4, moments=moments) for moments in (1, 2))
    assert with_two - with_one == 4 * parameters
    sizes = [training_memory(config, batch) for batch in (4, 8, 12)]
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], rel=0.02)


@pytest.mark.parametrize("moe", [None, MoEConfig(k=2, num_experts=8, every=2)], ids=["dense", "every second"])
def test_deep_models_follow_from_shallow_ones(moe: MoEConfig | None) -> None:
    config = DiTConfig(**{**LABELS, "depth": 14}, moe=moe)
    followed = training_memory(config, 4, bf16=True)
    options: dict[str, Any] = {"bf16": True, "activation_checkpointing": False, "moments": 2}
    whole = memory._counted(4, config, **options, text_tokens=16, visible_tokens=None)
    assert followed == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("impl", ["auto", "grouped_mm"])
def test_the_memory_of_every_backend_of_the_experts_is_that_of_the_loop(impl: str, bf16: bool) -> None:
    own, loop = (DiTConfig(**LABELS, moe=RACE.replace(impl=each)) for each in (impl, "loop"))
    assert training_memory(own, 4, bf16=bf16) == training_memory(loop, 4, bf16=bf16)


def test_large_models_are_counted_without_their_memory() -> None:
    """28 layers of 32 experts: 11 GB of weights alone."""
    moe = MoEConfig(k=4, num_experts=32)
    config = DiTConfig(dim=1152, depth=28, heads=16, input_size=32, channels=4, num_classes=1000, moe=moe)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in nn.ModuleList([config.build()]).parameters())
    assert training_memory(config, 8, bf16=True, activation_checkpointing=True) > 20 * parameters > 50e9
