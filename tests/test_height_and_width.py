"""Sizes as people write them, and grids."""

from __future__ import annotations

from typing import Any

import pytest

from leandit.config import Config, apply_overrides, validate
from leandit.errors import LeanDiTError
from leandit.grid import Grid, Size, read_size


class Shaped(Config):
    size: Size | None = None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *((32, 32), ("32", 32), (32.0, 32), ([32, 32], 32), ((24, 40), (24, 40)), ([24, 40], (24, 40)), ([7], 7)),
        *(("24x40", (24, 40)), ("24 X 40", (24, 40)), ("24×40", (24, 40)), ("40x40", 40)),
    ],
)
def test_a_size_is_read_and_written_back_as_people_write_it(given: Any, expected: Any) -> None:
    assert read_size(given) == expected
    config = Shaped(size=given)
    assert config.size == expected
    written = config.model_dump(mode="json")["size"]
    assert written == Grid.of(expected).plain == (expected if isinstance(expected, int) else list(expected))
    assert Shaped(size=written) == config == Shaped(size=str(Grid.of(expected)))


@pytest.mark.parametrize(
    "given",
    [
        *(0, -3, 1.5, True, "", "x", "24x", "x40", "24x40x3", "24,40", "-1x4", "²", "9" * 5000, float("nan")),
        *([], [1, 2, 3], [24, 0], [24, None], {}),
    ],
)
def test_what_is_no_size_is_told_with_the_way_out(given: Any) -> None:
    with pytest.raises(LeanDiTError, match=r"size: .* is no size: give one number for a square, or height and width"):
        validate(Shaped, {"size": given}, "test")


def test_overrides_take_both_forms() -> None:
    for text in ("size=[24,40]", "size=24x40"):
        assert validate(Shaped, apply_overrides({}, [text]), "test").size == (24, 40)
    assert validate(Shaped, apply_overrides({}, ["size=null"]), "test").size is None


def test_a_grid_is_cut_into_patches() -> None:
    grid = Grid.of((24, 40))
    assert (grid.tokens, grid.patches(8), str(grid), str(Grid(8, 8))) == (960, Grid(3, 5), "24x40", "8")
    assert grid.divisible(8)
    assert not grid.divisible(16)
    assert not grid.divisible(5)
