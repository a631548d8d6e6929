"""Tiny models with routers that hand out uneven numbers of pairs, and runs around them, without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from leandit.diffusion import EulerConfig, GuidanceConfig, RectifiedFlowConfig, build_objective
from leandit.models import Backbone, Conditioning, DiTAirConfig, DiTConfig, MaskingConfig, MMDiTConfig, PixArtConfig
from leandit.moe import MoEConfig, routers
from leandit.presets import run_config
from leandit.run import SamplingConfig
from leandit.sampling import LoadedRun
from leandit.text import TextFeatures

SIZE: dict[str, Any] = {"dim": 32, "depth": 2, "heads": 2, "patch_size": 4, "input_size": 16, "channels": 3}
TEXT: dict[str, Any] = {"num_classes": 0, "text_dim": 12, "pooled_dim": 12}
MOE = MoEConfig(k=2, num_experts=4, per_layer_regularisation=False)

CONFIGS = {
    "dit": DiTConfig(**SIZE, num_classes=3, moe=MOE),
    "dit-shared": DiTConfig(**SIZE, num_classes=3, moe=MOE, sharing="block"),
    "dit-every-2": DiTConfig(**SIZE, num_classes=3, moe=MOE.replace(every=2, num_experts=9)),
    "dit-air": DiTAirConfig(**SIZE, **TEXT, moe=MOE),
    "dit-air-shared": DiTAirConfig(**SIZE, **TEXT, moe=MOE, sharing="block"),
    "mmdit": MMDiTConfig(**SIZE, **TEXT, moe=MOE),
    "pixart": PixArtConfig(**SIZE, **TEXT, moe=MOE.replace(expert="swiglu")),
    "pixart-masking": PixArtConfig(
        **SIZE, **TEXT, moe=MOE, masking=MaskingConfig(decoder_depth=3, decoder_dim=16, decoder_heads=2)
    ),
}


def build(config: Any) -> Backbone:
    """Return the model with weights that do something everywhere."""
    torch.manual_seed(0)
    model = config.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for _, router in routers(model):
            if router.spans_samples:
                router.threshold.value.fill_(0.02)
    return model


def condition(config: Any, batch: int) -> Conditioning:
    if not config.conditions_on_text:
        return Conditioning(torch.arange(batch) % 3)
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(batch, 5, 12, generator=generator)
    return Conditioning(text=text, pooled=torch.randn(batch, 12, generator=generator))


def noisy(config: Any, batch: int, seed: int = 0) -> torch.Tensor:
    shape = (batch, config.channels, config.input_size, config.input_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def class_run(guidance: float = 3.0, steps: int = 3, **changes: Any) -> LoadedRun:
    """Return a run of a class-conditional model that was never trained."""
    moe = MOE.replace(**changes)
    sampling = SamplingConfig(sampler=EulerConfig(steps=steps), guidance=GuidanceConfig(scale=guidance))
    model = CONFIGS["dit"].replace(moe=moe)
    config = run_config("tiny", ["losses.per_layer_regularisation=0"])
    config = config.replace(model=model, sampling=sampling)
    names = ("ant", "bee", "<b>cat</b>")
    return LoadedRun(
        config, build(config.model), build_objective(RectifiedFlowConfig()), names, 7, Path("runs/ants & bees")
    )


class Words:
    """Stands in for a text encoder: a caption is the noise of its length."""

    text_dim = pooled_dim = 12
    fingerprint = "words"

    def encode(self, texts: list[str], checked: bool = False) -> TextFeatures:
        tokens = torch.stack([torch.randn(3, 12, generator=torch.Generator().manual_seed(len(t))) for t in texts])
        return TextFeatures(tokens, torch.ones(len(texts), 3, dtype=torch.bool), tokens.mean(1))


def text_run(name: str = "dit-air") -> LoadedRun:
    """Return a run of a model that reads prompts and was never trained."""
    run = class_run()
    config = run.config.model_copy(update={"model": CONFIGS[name]})
    return replace(run, model=build(CONFIGS[name]), config=config, text=Words())
