"""Pictures as PNG files and as one labelled grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# A grid is for looking at: more pictures than this are cut off.
_MAX_ROWS = 16
_MAX_COLUMNS = 32
_MARGIN = 4
_MIN_CELL = 72  # small pictures are enlarged by a whole factor to about this size


def to_image(picture: UInt8[Tensor, "height width channels"]) -> Image.Image:
    """Return a Pillow image, grey or RGB."""
    array = picture.numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def draw_grid(rows: Sequence[tuple[str, UInt8[Tensor, "_ height width channels"]]]) -> Image.Image:
    """Return one row of pictures per (name, pictures), with the name in front of it."""
    side = rows[0][1].shape[1]
    factor = max(1, round(_MIN_CELL / side))
    cell = side * factor + _MARGIN
    font = ImageFont.load_default(size=16)
    indent = max((int(font.getlength(name)) for name, _ in rows), default=0)
    indent += 3 * _MARGIN if indent else _MARGIN
    columns = max(len(pictures) for _, pictures in rows)
    canvas = Image.new("RGB", (indent + columns * cell, len(rows) * cell + _MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    for row, (name, pictures) in enumerate(rows):
        top = _MARGIN + row * cell
        pen.text((_MARGIN, top + cell // 2), name, fill="black", font=font, anchor="lm")
        for column, picture in enumerate(pictures):
            enlarged = to_image(picture).resize((side * factor, side * factor), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (indent + column * cell, top))
    return canvas


def rows_by_label(
    pictures: UInt8[Tensor, "batch height width channels"],
    labels: Sequence[int] | None,
    class_names: Sequence[str],
) -> list[tuple[str, Tensor]]:
    """Group pictures by label, for `draw_grid`; without labels, cut them into rows of a near-square grid."""
    if labels is None:
        columns = max(math.ceil(len(pictures) ** 0.5), math.ceil(len(pictures) / _MAX_ROWS))
        return [("", pictures[start : start + columns]) for start in range(0, len(pictures), columns)]
    chosen = np.array(labels)
    return [(class_name(label, class_names), pictures[chosen == label]) for label in dict.fromkeys(labels)]


def class_name(label: int, class_names: Sequence[str]) -> str:
    """Return the name of a class, or "class 7": a model may have more classes than its data have names."""
    return class_names[label] if 0 <= label < len(class_names) else f"class {label}"


def fits_grid(labels: Sequence[int] | None, count: int) -> list[int]:
    """Return which of `count` pictures a grid of at most 16 rows and 32 columns shows: the first of each row."""
    if labels is None:
        return list(range(min(count, _MAX_ROWS * _MAX_COLUMNS)))
    room = dict.fromkeys(list(dict.fromkeys(labels))[:_MAX_ROWS], _MAX_COLUMNS)
    kept = []
    for index, label in enumerate(labels):
        if room.get(label, 0):
            room[label] -= 1
            kept.append(index)
    return kept


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG")
