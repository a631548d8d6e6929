"""Models with weights of another dtype than float32, and the hidden width that a ratio stands for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from leandit.models import BackboneConfig, Conditioning, DiTAirConfig, DiTConfig, MMDiTConfig, PixArtConfig
from leandit.models.backbone import hidden_width
from leandit.moe import MoEConfig

SMALL: dict[str, Any] = {"dim": 32, "depth": 2, "heads": 4, "input_size": 8, "channels": 3, "num_classes": 0}
TEXT: dict[str, Any] = {"text_dim": 12, "pooled_dim": 6}
MODELS: dict[str, BackboneConfig] = {
    "dit": DiTConfig(**{**SMALL, "num_classes": 2}),
    "race-dit": DiTConfig(**{**SMALL, "num_classes": 2}, moe=MoEConfig(k=2, num_experts=4)),
    "pixart": PixArtConfig(**SMALL, **TEXT),
    "ec-dit": PixArtConfig(adaln="per_layer", adaln_vectors=3, project_text=False, time_dim=None, **SMALL, **TEXT),
    "mmdit": MMDiTConfig(**SMALL, **TEXT),
    "dit-air": DiTAirConfig(**SMALL, **TEXT),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_weights_of_any_dtype_compute_in_it(name: str, dtype: torch.dtype) -> None:
    config = MODELS[name]
    model: Any = config.build()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    x, t = torch.randn(3, 3, 8, 8, generator=generator), torch.rand(3, generator=generator)
    text, pooled = torch.randn(3, 5, 12, generator=generator), torch.randn(3, 6, generator=generator)
    label = None if config.conditions_on_text else torch.tensor([0, 1, -1])

    def predict(kind: torch.dtype) -> torch.Tensor:
        cond = Conditioning(label) if label is not None else Conditioning(text=text.to(kind), pooled=pooled.to(kind))
        output: torch.Tensor = model.to(kind)(x.to(kind), t, cond).prediction
        return output

    expected = predict(torch.float32).detach()
    found = predict(dtype)
    assert found.dtype == dtype
    found.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.time_embedding.parameters())
    if name != "race-dit" or dtype == torch.float64:  # a rounding error can choose another expert
        loose = 0.0005 if dtype == torch.float64 else 0.15
        torch.testing.assert_close(found.detach().float(), expected, rtol=0, atol=loose * float(expected.abs().max()))


@settings(max_examples=500, deadline=None)
@given(dim=st.integers(1, 600).map(lambda n: 4 * n), hidden=st.integers(1, 12_000))
def test_a_ratio_that_was_computed_from_a_width_gives_that_width(dim: int, hidden: int) -> None:
    assert hidden_width(dim, hidden / dim) == hidden


@pytest.mark.parametrize(("dim", "ratio", "hidden"), [(224, 976 / 224, 976), (128, 2.67, 341), (384, 4.0, 1536)])
def test_any_other_ratio_rounds_down(dim: int, ratio: float, hidden: int) -> None:
    assert PixArtConfig(dim=dim, heads=4, mlp_ratio=ratio).hidden == hidden
