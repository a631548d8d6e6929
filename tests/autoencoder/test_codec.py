"""The codec of pixels: shift and scale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import leandit
from leandit.autoencoder import PixelsConfig
from leandit.errors import LeanDiTError
from leandit.presets import run_config

pytestmark = pytest.mark.usefixtures("no_figures")

WHITE = ["codec.type=pixels", "codec.shift=1", "codec.scale=0.5"]


@pytest.mark.parametrize(("shift", "scale"), [(1.0, 1.0), (-0.25, 0.5), (0.0, 3.0)])
def test_pixels_are_shifted_scaled_and_restored(shift: float, scale: float) -> None:
    codec = PixelsConfig(shift=shift, scale=scale).build()
    x = torch.linspace(-1, 1, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    z = codec.encode(x)
    for pixel, value in zip(x.flatten().tolist(), z.flatten().tolist(), strict=True):
        assert value == pytest.approx((pixel - shift) * scale, abs=1e-6)
    torch.testing.assert_close(codec.decode(z), x, atol=1e-6, rtol=0)
    assert codec.shape((3, 4, 5)) == (3, 4, 5)


def test_without_shift_and_scale_pixels_are_the_same_tensor() -> None:
    codec, x = PixelsConfig().build(), torch.randn(1, 3, 2, 2)
    assert codec.encode(x) is x
    assert codec.decode(x) is x
    assert codec.identity == {}


def test_a_run_with_white_as_zero_draws_white_from_a_model_that_gives_zero(tmp_path: Path) -> None:
    assert leandit.train(run_config("tiny", [*WHITE, "train.steps=1"]), tmp_path / "run") == 0
    run = leandit.load(tmp_path / "run")
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.zero_()
    # x0 is x_T - v: with v = 0 the noise is the picture, whose mean is the shift: pixels are 255 and clipped noise.
    drawn = leandit.sample(run, [0], range(8)).float()
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    expected = float((((noise / 0.5 + 1).clamp(-1, 1) + 1) * 127.5).mean())
    assert float(drawn.mean()) == pytest.approx(expected, abs=3)


def test_another_shift_is_another_run(tmp_path: Path) -> None:
    assert leandit.train(run_config("tiny", [*WHITE, "train.steps=1"]), tmp_path / "run") == 0
    with pytest.raises(LeanDiTError, match=r"codec\.shift"):
        leandit.train(run_config("tiny", [*WHITE, "codec.shift=0.5", "train.steps=2"]), tmp_path / "run", resume=True)
    with pytest.raises(LeanDiTError, match="codec"):
        leandit.train(run_config("tiny", ["train.steps=2"]), tmp_path / "run", resume=True)
