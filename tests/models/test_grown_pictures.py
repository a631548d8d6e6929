"""Models on larger pictures than they learned on: the same weights, positions over the same span."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from leandit.errors import LeanDiTError
from leandit.grid import Grid
from leandit.models import Backbone, Conditioning, DiTAirConfig, DiTConfig, MMDiTConfig, PixArtConfig
from leandit.nn import sincos_positions

SIZE: dict[str, Any] = {"dim": 16, "depth": 1, "heads": 2, "patch_size": 2, "channels": 3, "num_classes": 0}
TEXT = {"text_dim": 6, "pooled_dim": 6}
WITH_POSITIONS = {"dit": (DiTConfig, {}), "pixart": (PixArtConfig, TEXT), "mmdit": (MMDiTConfig, TEXT)}


@pytest.mark.parametrize("name", WITH_POSITIONS)
def test_positions_follow_position_grid_and_are_no_weights(name: str) -> None:
    kind, text = WITH_POSITIONS[name]
    small = kind(input_size=8, **SIZE, **text).build()
    grown = kind(input_size=16, position_grid=4, **SIZE, **text).build()
    plain = kind(input_size=16, **SIZE, **text).build()
    wide = kind(input_size=(8, 24), position_grid=(4, 6), **SIZE, **text).build()
    for model in (grown, plain, wide):
        model.load_state_dict(small.state_dict())
        assert not list(model.named_buffers())
    four, eight = Grid(4, 4), Grid(8, 8)
    assert torch.equal(small.positions(four), sincos_positions(16, four))
    assert torch.equal(plain.positions(eight), sincos_positions(16, eight))
    assert torch.equal(grown.positions(eight).view(8, 8, 16)[::2, ::2], small.positions(four).view(4, 4, 16))
    assert not torch.equal(grown.positions(eight), plain.positions(eight))
    assert torch.equal(small.positions(eight), grown.positions(eight)), "a model's own grid is its span"
    assert torch.equal(wide.positions(Grid(4, 12)), sincos_positions(16, Grid(4, 12), Grid(4, 6)))


def test_rope_extends_and_refuses_a_grid_of_its_own() -> None:
    model = DiTAirConfig(input_size=8, **SIZE, **TEXT).build()
    small, grown = model.rotation(Grid(4, 4)).view(2, 4, 4, -1), model.rotation(Grid(8, 6)).view(2, 8, 6, -1)
    assert torch.equal(grown[:, :4, :4], small)
    assert not torch.equal(grown[:, 4:, :4], small)
    with pytest.raises(ValidationError, match="RoPE extends to any grid"):
        DiTAirConfig(position_grid=4, **TEXT)


KINDS = {**WITH_POSITIONS, "dit_air": (DiTAirConfig, TEXT)}


@pytest.mark.parametrize("name", KINDS)
def test_a_model_takes_any_shape_whatever_it_was_built_for(name: str) -> None:
    kind, text = KINDS[name]
    span = {} if name == "dit_air" else {"position_grid": (4, 6)}
    square = perturbed(kind(input_size=8, **SIZE, **text, **span).build())
    wide = kind(input_size=(8, 12), **SIZE, **text, **span).build().eval()
    wide.load_state_dict(square.state_dict())
    cond = Conditioning(text=torch.randn(2, 5, 6), pooled=torch.randn(2, 6)) if text else Conditioning()
    x, t = torch.randn(2, 3, 8, 12), torch.rand(2)
    prediction = square(x, t, cond).prediction
    assert prediction.shape == x.shape
    assert torch.equal(prediction, wide(x, t, cond).prediction)
    assert torch.equal(square.unpatchify(square.patchify(x), Grid(4, 6)), x)
    # Positions tell the patches apart: the same patches elsewhere are another picture.
    moved = square(x.roll((2, 4), (2, 3)), t, cond).prediction.roll((-2, -4), (2, 3))
    assert not torch.allclose(prediction, moved)


@pytest.mark.parametrize("name", KINDS)
def test_an_input_that_the_patch_size_does_not_divide_is_refused(name: str) -> None:
    kind, text = KINDS[name]
    model = kind(input_size=8, **SIZE, **text).build()
    cond = Conditioning(text=torch.randn(1, 5, 6), pooled=torch.randn(1, 6))
    with pytest.raises(LeanDiTError, match=r"8 x 13 \(height x width\) is not divisible by patch_size = 2"):
        model(torch.randn(1, 3, 8, 13), torch.rand(1), cond)
    with pytest.raises(ValidationError, match="input_size = 8x13 is not divisible by patch_size = 2"):
        kind(input_size=(8, 13), **SIZE, **text)


def perturbed(model: Backbone) -> Backbone:
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()
