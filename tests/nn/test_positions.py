"""Sin-cos positions against a table written out patch by patch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leandit.nn import sincos_positions


def position(dim: int, row: float, column: float) -> list[float]:
    """First half from the column, second from the row; each all sines, then all cosines (MAE's layout)."""
    half: list[float] = []
    for coordinate in (column, row):
        angles = [coordinate / 10_000 ** (4 * i / dim) for i in range(dim // 4)]
        half += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return half


@pytest.mark.parametrize(("dim", "grid"), [(8, 3), (384, 16), (4, 1)])
def test_equals_the_formula(dim: int, grid: int) -> None:
    expected = [position(dim, row, column) for row in range(grid) for column in range(grid)]
    np.testing.assert_allclose(sincos_positions(dim, grid).numpy(), np.array(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("grid", "base_grid"), [(8, 4), (32, 16), (6, 4), (4, 8)])
def test_another_grid_divides_the_span_of_the_base_grid(grid: int, base_grid: int) -> None:
    side = [base_grid * k / grid for k in range(grid)]
    expected = [position(16, row, column) for row in side for column in side]
    np.testing.assert_allclose(sincos_positions(16, grid, base_grid).numpy(), np.array(expected), rtol=0, atol=1e-6)


def test_the_base_grid_itself_is_the_positions_without_one() -> None:
    assert (sincos_positions(16, 5, 5) == sincos_positions(16, 5)).all()


def test_patches_of_a_grown_picture_lie_where_those_of_the_small_one_did() -> None:
    small, grown = sincos_positions(32, 4).view(4, 4, 32), sincos_positions(32, 12, 4).view(12, 12, 32)
    np.testing.assert_allclose(grown[::3, ::3], small, atol=1e-6)
    assert (grown[-1, -1] != sincos_positions(32, 12).view(12, 12, 32)[-1, -1]).any()
