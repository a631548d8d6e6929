"""Thresholds moved and moved back: more budget is more pairs, and budget 1 is the model as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import leandit
from leandit.app.drawing import Drawing, draw_frames
from leandit.app.request import read_request
from leandit.app.runs import ServedRun
from leandit.moe import routers
from leandit.moe.budget import shifted
from leandit.sampling import calibrate


def thresholds(served: ServedRun) -> list[torch.Tensor]:
    return [router.threshold.value.clone() for _, router in routers(served.run.model)]


def draw(served: dict[str, ServedRun], budget: float, seed: int = 5) -> Drawing:
    *_, drawing = draw_frames(read_request(served, ("run", None, "heart", seed, 4, 2.0, budget)))
    assert isinstance(drawing, Drawing)
    return drawing


def test_the_record_holds_what_routers_said(served: dict[str, ServedRun]) -> None:
    calibration = calibrate(served["run"].run)
    # 4 drawings in 4 steps of Heun's, which are 7 evaluations, of 16 tokens with 4 experts each.
    assert [part.shape for part in calibration.scores] == [(4 * 7 * 16 * 4, 1)] * 2
    assert all((part[:-1] >= part[1:]).all() for part in calibration.scores)
    again = calibrate(served["run"].run)
    assert all(torch.equal(a, b) for a, b in zip(calibration.scores, again.scores, strict=True))


def test_thresholds_come_back_to_the_bit(served: dict[str, ServedRun]) -> None:
    run = served["run"]
    before = thresholds(run)
    moved = run.calibration.thresholds(2.0)
    with pytest.raises(ZeroDivisionError), shifted(run.run.model, moved):
        assert 1 / int(any(torch.equal(a, b) for a, b in zip(before, thresholds(run), strict=True)))
    assert all(torch.equal(a, b) for a, b in zip(before, thresholds(run), strict=True))
    draw(served, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, thresholds(run), strict=True))


def test_more_budget_is_more_pairs(served: dict[str, ServedRun]) -> None:
    spent = [int(draw(served, budget).load.sum()) for budget in (0.5, 0.75, 1.0, 1.5, 2.0)]  # type: ignore[union-attr]
    assert spent == sorted(set(spent))
    # An estimate from other drawings, so near what was asked for rather than exact.
    assert spent[0] / spent[2] == pytest.approx(0.5, abs=0.15)
    assert spent[3] / spent[2] == pytest.approx(1.5, abs=0.3)


def test_budget_one_is_the_picture_of_sample(served: dict[str, ServedRun], tiny_run: Path) -> None:
    draw(served, 2.0)
    drawn = draw(served, 1.0, seed=7).picture
    (expected,) = leandit.sample(tiny_run, ["heart"], [7], steps=4, guidance=2.0)
    assert torch.equal(drawn, expected)
    assert not torch.equal(draw(served, 0.5, seed=7).picture, expected)


def test_load_and_maps_are_the_same_pairs(served: dict[str, ServedRun]) -> None:
    *frames, drawing = draw_frames(read_request(served, ("run", None, 1, 5, 4, 1.0, 1)))
    assert isinstance(drawing, Drawing)
    assert drawing.trace is not None
    assert drawing.load is not None
    assert len(frames) == 7
    assert [frame.t for frame in frames] == [1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]  # type: ignore[union-attr]
    assert drawing.load.shape == (2, 4)
    assert drawing.load.sum() == drawing.trace.experts.sum()
    means = [frame.experts for frame in frames]  # type: ignore[union-attr]
    assert np.sum(means) * 2 == pytest.approx(drawing.load.sum())
