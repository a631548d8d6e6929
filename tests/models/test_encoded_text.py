"""Text that is encoded once gives what text that is encoded at every step gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from leandit.models import Backbone, Conditioning, DiTAirConfig, MMDiTConfig, PixArtConfig

GEOMETRY = {"dim": 32, "depth": 3, "heads": 2, "input_size": 8, "channels": 3, "num_classes": 0, "text_dim": 10}
KINDS: dict[str, Any] = {
    "pixart": PixArtConfig,
    "ec_dit": lambda **fields: PixArtConfig(adaln="per_layer", kv_heads=1, project_text=False, **fields),
    "shared": lambda **fields: PixArtConfig(sharing="block", qk_norm=True, **fields),
    "mmdit": MMDiTConfig,
    "dit_air": DiTAirConfig,
}


def build(kind: str) -> Backbone:
    model = KINDS[kind](**GEOMETRY, pooled_dim=7).build().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15)
    return model


def condition() -> Conditioning:
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    return Conditioning(text=torch.randn(2, 5, 10), text_mask=mask, pooled=torch.randn(2, 7))


@pytest.mark.parametrize("kind", KINDS)
def test_the_prediction_is_the_same(kind: str) -> None:
    torch.manual_seed(0)
    model, cond, x, t = build(kind), condition(), torch.randn(2, 3, 8, 8), torch.rand(2)
    with torch.no_grad():
        assert torch.equal(model(x, t, model.encode_text(cond)).prediction, model(x, t, cond).prediction)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_reads_the_text_again(kind: str) -> None:
    torch.manual_seed(0)
    model = build(kind)
    with torch.no_grad():
        encoded = model.encode_text(condition())
        for name, module in model.named_modules():
            if name.endswith(("cross_attention.kv", "text_embedding", "text_projection", "pooled_embedding")):
                for parameter in module.parameters():
                    nn.init.constant_(parameter, torch.nan)
        assert model(torch.randn(2, 3, 8, 8), torch.rand(2), encoded).prediction.isfinite().all()


def test_conditions_that_are_joined_are_encoded_anew() -> None:
    model = build("dit_air")
    with torch.no_grad():
        encoded = model.encode_text(condition())
    assert encoded.encoded is not None
    assert encoded.stack(condition()).encoded is None
    assert encoded.map(torch.clone).encoded is None
