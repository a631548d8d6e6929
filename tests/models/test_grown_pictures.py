"""Models on larger pictures than they learned on: the same weights, positions over the same span."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from leandit.models import DiTAirConfig, DiTConfig, MMDiTConfig, PixArtConfig
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
    grown.load_state_dict(small.state_dict())
    assert torch.equal(small.positions, sincos_positions(16, 4))
    assert torch.equal(plain.positions, sincos_positions(16, 8))
    assert torch.equal(grown.positions.view(8, 8, 16)[::2, ::2], small.positions.view(4, 4, 16))
    assert not torch.equal(grown.positions, plain.positions)


def test_rope_extends_and_refuses_a_grid_of_its_own() -> None:
    small = DiTAirConfig(input_size=8, **SIZE, **TEXT).build()
    grown = DiTAirConfig(input_size=16, **SIZE, **TEXT).build()
    grown.load_state_dict(small.state_dict())
    angles = grown.rotation.view(2, 8, 8, -1)
    assert torch.equal(angles[:, :4, :4], small.rotation.view(2, 4, 4, -1))
    assert not torch.equal(angles[:, 4:, 4:], angles[:, :4, :4])
    with pytest.raises(ValidationError, match="RoPE extends to any grid"):
        DiTAirConfig(position_grid=4, **TEXT)
