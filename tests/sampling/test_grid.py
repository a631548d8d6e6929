"""The labelled grid: every picture in its place, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leandit.sampling import class_name, draw_grid, fits_grid, rows_by_label, save_png, to_image

PICTURES = torch.from_numpy(np.random.default_rng(0).integers(0, 200, (6, 36, 36, 3), dtype=np.uint8))


def test_rows_follow_the_labels_in_their_order() -> None:
    rows = rows_by_label(PICTURES, [1, 0, 1, 0, 2, 1], ["ant", "bee"])
    assert [name for name, _ in rows] == ["bee", "ant", "class 2"]
    assert torch.equal(rows[0][1], PICTURES[[0, 2, 5]])
    assert torch.equal(rows[1][1], PICTURES[[1, 3]])


def test_without_labels_the_grid_is_nearly_square() -> None:
    assert [len(pictures) for _, pictures in rows_by_label(PICTURES[:5], None, [])] == [3, 2]


def test_a_class_without_a_name_is_called_by_its_number() -> None:
    assert [class_name(label, ["ant", "bee"]) for label in (1, 2, -1)] == ["bee", "class 2", "class -1"]


def test_of_many_pictures_the_grid_takes_sixteen_rows_of_thirty_two() -> None:
    labels = [label for label in range(20) for _ in range(40)]
    kept = fits_grid(labels, len(labels))
    assert kept == [label * 40 + column for label in range(16) for column in range(32)]
    assert fits_grid([3, 1, 3], 3) == [0, 1, 2]
    assert fits_grid(None, 900) == list(range(512))


@pytest.mark.parametrize(("count", "rows", "columns"), [(5, 2, 3), (256, 16, 16), (257, 16, 17), (512, 16, 32)])
def test_a_grid_without_labels_keeps_to_that(count: int, rows: int, columns: int) -> None:
    cut = rows_by_label(torch.zeros(count, 4, 4, 1, dtype=torch.uint8), None, [])
    assert len(cut) == rows
    assert max(len(pictures) for _, pictures in cut) == columns
    assert sum(len(pictures) for _, pictures in cut) == count


def test_pictures_are_enlarged_and_pasted_whole() -> None:
    grid = np.asarray(draw_grid([("", PICTURES[:3]), ("", PICTURES[3:5])]))
    # 36 pixels are doubled; 4 pixels of margin around each.
    assert grid.shape == (2 * 76 + 4, 3 * 76 + 4, 3)
    for index in range(5):
        top, left = 4 + 76 * (index // 3), 4 + 76 * (index % 3)
        cell = grid[top : top + 72, left : left + 72]
        np.testing.assert_array_equal(cell[::2, ::2], PICTURES[index].numpy())
        np.testing.assert_array_equal(cell[1::2, 1::2], PICTURES[index].numpy())
    assert (grid[80:152, 156:228] == 255).all()


def test_names_stand_in_front_of_their_rows() -> None:
    grid = np.asarray(draw_grid([("a long class name", PICTURES[:1]), ("b", PICTURES[1:2])]))
    indent = grid.shape[1] - 76
    assert indent > 100
    assert (grid[:76, :indent] < 128).any()
    np.testing.assert_array_equal(grid[4:76:2, indent : indent + 72 : 2], PICTURES[0].numpy())


def test_grey_pictures_are_grey_files(tmp_path: Path) -> None:
    grey = PICTURES[0, :, :, :1]
    save_png(to_image(grey), tmp_path / "new" / "grey.png")
    with Image.open(tmp_path / "new" / "grey.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), grey[..., 0].numpy())
