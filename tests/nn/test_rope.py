"""Two-dimensional rotary positions against complex numbers, and the properties they are there for."""

from __future__ import annotations

import cmath

import pytest
import torch
from torch import Tensor

from leandit.grid import Grid
from leandit.nn.rope import rope_2d, rotate


def by_complex_numbers(x: Tensor, row: int, column: int, base: float) -> list[float]:
    """Multiply the pairs of one vector, as complex numbers, by e^{i position frequency}, one pair at a time."""
    pairs = len(x) // 2
    out: list[float] = []
    for pair in range(pairs):
        position, index = (row, pair) if pair < pairs // 2 else (column, pair - pairs // 2)
        turn = cmath.exp(1j * position * base ** (-2 * index / pairs))
        value = complex(x[2 * pair].item(), x[2 * pair + 1].item()) * turn
        out += [value.real, value.imag]
    return out


@pytest.mark.parametrize(("base", "grid"), [(10_000.0, Grid(4, 4)), (100.0, Grid(4, 4)), (100.0, Grid(2, 8))])
def test_equals_multiplication_of_complex_numbers(base: float, grid: Grid) -> None:
    x = torch.randn(2, 3, 20, 16, generator=torch.Generator().manual_seed(0))[:, :, :16]
    turned = rotate(x, rope_2d(16, grid, base))
    for row in range(grid.height):
        for column in range(grid.width):
            token = grid.width * row + column
            expected = by_complex_numbers(x[1, 2, token], row, column, base)
            assert turned[1, 2, token].tolist() == pytest.approx(expected, abs=1e-5)


def test_scores_depend_on_the_difference_of_positions_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 32, generator=generator)
    rotation = rope_2d(32, Grid(9, 9))
    turned_q, turned_k = (rotate(x.expand(1, 1, 81, 32), rotation)[0, 0].view(9, 9, 32) for x in (q, k))

    def score(query: tuple[int, int], key: tuple[int, int]) -> float:
        return float(turned_q[query] @ turned_k[key])

    for query, key in [((0, 0), (2, 3)), ((1, 4), (0, 0)), ((2, 2), (2, 5))]:
        shifted = score((query[0] + 5, query[1] + 3), (key[0] + 5, key[1] + 3))
        assert shifted == pytest.approx(score(query, key), abs=1e-4)
    assert score((0, 0), (2, 3)) != pytest.approx(score((0, 0), (3, 2)), abs=1e-2), "rows and columns differ"


def test_a_turn_keeps_lengths_and_leaves_the_origin_alone() -> None:
    x = torch.randn(2, 2, 25, 8)
    turned = rotate(x, rope_2d(8, Grid(5, 5)))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert not torch.allclose(turned[:, :, 1:], x[:, :, 1:], atol=1e-3)


def test_a_larger_grid_extends_a_smaller_one() -> None:
    small, large = rope_2d(16, Grid(4, 4)), rope_2d(16, Grid(32, 12))
    assert torch.equal(large.view(2, 32, 12, 8)[:, :4, :4], small.view(2, 4, 4, 8))


def test_low_precision_goes_in_and_comes_out() -> None:
    x = torch.randn(1, 1, 16, 8, dtype=torch.bfloat16)
    turned = rotate(x, rope_2d(8, Grid(4, 4)))
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned.float(), rotate(x.float(), rope_2d(8, Grid(4, 4))), atol=0.02, rtol=0.01)
