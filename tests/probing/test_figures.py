"""The figures are written, hold what they are given, and warn of nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leandit.grid import Grid
from leandit.probing import ComputeTrace, plot_compute, plot_curves


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def trace(value: float = 2.0) -> ComputeTrace:
    experts = torch.full((10, 2, 3, 16), value)
    experts[:, :, :, 5] = 4
    return ComputeTrace(experts, torch.linspace(1, 0.1, 10), ("blocks.0", "blocks.1"), Grid(4, 4))


@pytest.mark.parametrize("channels", [1, 3])
def test_compute_map(tmp_path: Path, channels: int) -> None:
    pictures = torch.full((3, 8, 8, channels), 128, dtype=torch.uint8)
    plot_compute(trace(), pictures, ["ant", "bee", ""], 2, tmp_path / "compute.png")
    image = read(tmp_path / "compute.png")
    assert image.shape[1] == 1265
    assert image.shape[0] > 800
    assert (image == 128).all(-1).sum() > 1000
    plot_compute(trace(0.0), pictures, ["ant", "bee", ""], 2, tmp_path / "other.png")
    assert (read(tmp_path / "other.png") != image).any()


def test_names_are_not_read_as_formulas(tmp_path: Path) -> None:
    pictures = torch.zeros(3, 8, 8, 1, dtype=torch.uint8)
    odd = ComputeTrace(trace().experts, trace().times, ("$\\frac{$", "a$b$"), Grid(4, 4))
    plot_compute(odd, pictures, ["$\\frac{$", "a$b$", "$"], 2, tmp_path / "compute.png")
    read(tmp_path / "compute.png")


def records() -> list[dict[str, object]]:
    return [
        {"step": s, "loss": 1 / s, "mse": 1 / s, "max_violation/blocks.0.moe": 0.5, "load/blocks.0.moe": [0.5, 0.5]}
        for s in (1, 2, 3)
    ]


def test_curves(tmp_path: Path) -> None:
    plot_curves(records(), tmp_path / "moe.png")
    assert read(tmp_path / "moe.png").shape[1] == 1265
    dense = [{"step": r["step"], "mse": r["mse"]} for r in records()]
    plot_curves(dense, tmp_path / "dense.png")
    assert read(tmp_path / "dense.png").shape[1] == 770


def test_curves_of_a_term_that_came_later_or_diverged(tmp_path: Path) -> None:
    mixed = [*records(), {"step": 4, "mse": float("nan"), "vlb": 0.1}]
    plot_curves(mixed, tmp_path / "mixed.png")
    plot_curves(records()[:1], tmp_path / "one.png")
    read(tmp_path / "mixed.png")
    read(tmp_path / "one.png")
