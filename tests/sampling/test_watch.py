"""Watching a drawing: every evaluation is seen, guided, and seeing changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from leandit.diffusion import EulerConfig, GuidanceConfig
from leandit.run import SamplingConfig
from leandit.sampling import draw, load


def test_the_last_step_of_euler_lands_on_its_estimate(tiny_run: Path) -> None:
    """From t to 0 on the linear path, x - t v is both Euler's step and the estimate of the data."""
    run = load(tiny_run)
    settings = SamplingConfig(sampler=EulerConfig(steps=4), guidance=GuidanceConfig(scale=3.0))
    seen: list[tuple[float, Tensor]] = []
    drawn = draw(run, [0, 1], [3, 4], settings, watch=lambda t, x0: seen.append((float(t[0]), x0)))
    assert [t for t, _ in seen] == [1.0, 0.75, 0.5, 0.25]
    assert all(x0.shape == drawn.shape for _, x0 in seen)
    torch.testing.assert_close(seen[-1][1], drawn)
    assert not torch.allclose(seen[0][1], drawn)
    assert torch.equal(draw(run, [0, 1], [3, 4], settings), drawn)


def test_what_a_watcher_raises_ends_the_drawing(tiny_run: Path) -> None:
    run, seen = load(tiny_run), []

    def leave(t: Tensor, x0: Tensor) -> None:
        seen.append(t)
        raise KeyError("left")

    with pytest.raises(KeyError, match="left"):
        draw(run, [0], [3], watch=leave)
    assert len(seen) == 1
