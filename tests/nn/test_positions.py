"""Sin-cos positions against a table written out patch by patch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leandit.nn import sincos_positions


def position(dim: int, row: int, column: int) -> list[float]:
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
