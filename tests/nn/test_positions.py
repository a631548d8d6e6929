"""Sin-cos positions against a table written out patch by patch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from leandit.grid import Grid
from leandit.nn import sincos_positions

FOUR, TWELVE = Grid(4, 4), Grid(12, 12)


def position(dim: int, row: float, column: float) -> list[float]:
    """First half from the column, second from the row; each all sines, then all cosines (MAE's layout)."""
    half: list[float] = []
    for coordinate in (column, row):
        angles = [coordinate / 10_000 ** (4 * i / dim) for i in range(dim // 4)]
        half += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return half


@pytest.mark.parametrize(
    ("dim", "grid"), [(8, Grid(3, 3)), (384, Grid(16, 16)), (4, Grid(1, 1)), (64, Grid(6, 10)), (8, Grid(5, 2))]
)
def test_equals_the_formula(dim: int, grid: Grid) -> None:
    expected = [position(dim, row, column) for row in range(grid.height) for column in range(grid.width)]
    np.testing.assert_allclose(sincos_positions(dim, grid).numpy(), np.array(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("grid", "span"),
    [
        *((Grid(8, 8), Grid(4, 4)), (Grid(32, 32), Grid(16, 16)), (Grid(6, 6), Grid(4, 4)), (Grid(4, 4), Grid(8, 8))),
        *((Grid(6, 10), Grid(8, 8)), (Grid(12, 3), Grid(6, 10)), (Grid(7, 4), Grid(7, 2))),
    ],
)
def test_another_grid_divides_the_span(grid: Grid, span: Grid) -> None:
    rows = [span.height * k / grid.height for k in range(grid.height)]
    columns = [span.width * k / grid.width for k in range(grid.width)]
    expected = [position(16, row, column) for row in rows for column in columns]
    np.testing.assert_allclose(sincos_positions(16, grid, span).numpy(), np.array(expected), rtol=0, atol=1e-6)


def test_a_grid_is_its_own_span_without_one() -> None:
    assert (sincos_positions(16, Grid(5, 3), Grid(5, 3)) == sincos_positions(16, Grid(5, 3))).all()


def test_patches_of_a_grown_picture_lie_where_those_of_the_small_one_did() -> None:
    small, grown = sincos_positions(32, FOUR).view(4, 4, 32), sincos_positions(32, TWELVE, FOUR).view(12, 12, 32)
    np.testing.assert_allclose(grown[::3, ::3], small, atol=1e-6)
    assert (grown[-1, -1] != sincos_positions(32, TWELVE).view(12, 12, 32)[-1, -1]).any()


def test_a_table_is_kept_for_its_device_and_dtype_and_can_be_trained_with() -> None:
    with torch.inference_mode():
        first = sincos_positions(20, Grid(3, 2))
    assert sincos_positions(20, Grid(3, 2)) is first
    assert not first.is_inference()
    assert sincos_positions(20, Grid(3, 2), dtype=torch.bfloat16).dtype == torch.bfloat16
    assert sincos_positions(20, Grid(3, 2), device="meta").is_meta


def test_a_table_without_content_is_not_kept() -> None:
    with FakeTensorMode():
        assert type(sincos_positions(28, Grid(2, 3))) is not torch.Tensor
    assert type(sincos_positions(28, Grid(2, 3))) is torch.Tensor
    with FakeTensorMode():
        assert type(sincos_positions(28, Grid(2, 3))) is not torch.Tensor
