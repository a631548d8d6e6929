"""Pictures as PNG files, as data URIs, and as one labelled grid."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from leandit.run.conditioner import Wanted
from leandit.sampling.lettering import drawable, label_font

# People look at a grid: it shows at most these rows and columns of pictures.
_MAX_ROWS = 16
_MAX_COLUMNS = 32
_MARGIN = 4
_MAX_NAME = 60
_MADE_BY = "leandit"  # the keyword of the text chunk
_MIN_CELL = 72  # small pictures are enlarged by an integer factor to about this size


def to_image(picture: UInt8[Tensor, "height width channels"]) -> Image.Image:
    """Return a Pillow image, grey or RGB."""
    array = picture.numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def draw_grid(rows: Sequence[tuple[str, UInt8[Tensor, "_ height width channels"]]]) -> Image.Image:
    """Return one row of pictures per (name, pictures), with the name in front of it."""
    height, width = rows[0][1].shape[1:3]
    factor = max(1, round(_MIN_CELL / max(height, width)))
    cell_height, cell_width = height * factor + _MARGIN, width * factor + _MARGIN
    rows = [(drawable(name), pictures) for name, pictures in rows]
    font = label_font("".join(name for name, _ in rows), size=16)
    indent = max((int(font.getlength(name)) for name, _ in rows), default=0)
    indent += 3 * _MARGIN if indent else _MARGIN
    columns = max(len(pictures) for _, pictures in rows)
    canvas = Image.new("RGB", (indent + columns * cell_width, len(rows) * cell_height + _MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    for row, (name, pictures) in enumerate(rows):
        top = _MARGIN + row * cell_height
        pen.text((_MARGIN, top + cell_height // 2), name, fill="black", font=font, anchor="lm")
        for column, picture in enumerate(pictures):
            enlarged = to_image(picture).resize((width * factor, height * factor), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (indent + column * cell_width, top))
    return canvas


def rows_by_label(
    pictures: UInt8[Tensor, "batch height width channels"], wanted: Wanted, class_names: Sequence[str]
) -> list[tuple[str, Tensor]]:
    """Group pictures by label or prompt for `draw_grid`. Without these, put them into rows of a near-square grid."""
    if wanted is None:
        columns = max(math.ceil(len(pictures) ** 0.5), math.ceil(len(pictures) / _MAX_ROWS))
        return [("", pictures[start : start + columns]) for start in range(0, len(pictures), columns)]
    rows: dict[int | str, list[int]] = {}
    for index, choice in enumerate(wanted):
        rows.setdefault(choice, []).append(index)
    return [(class_name(choice, class_names), pictures[indices]) for choice, indices in rows.items()]


def class_name(choice: int | str, class_names: Sequence[str]) -> str:
    """Return a prompt, cut if it is long, or the name of a class, or "class 7" if classes have no names."""
    if isinstance(choice, str):
        line = " ".join(choice.split())
        return line if len(line) <= _MAX_NAME else line[: _MAX_NAME - 3] + "..."
    return class_names[choice] if 0 <= choice < len(class_names) else f"class {choice}"


def fits_grid(wanted: Wanted, count: int) -> list[int]:
    """Return which of `count` pictures a grid of at most 16 rows and 32 columns shows: the first of each row."""
    if wanted is None:
        return list(range(min(count, _MAX_ROWS * _MAX_COLUMNS)))
    room: dict[int | str, int] = dict.fromkeys(list(dict.fromkeys(wanted))[:_MAX_ROWS], _MAX_COLUMNS)
    kept = []
    for index, choice in enumerate(wanted):
        if room.get(choice, 0):
            room[choice] -= 1
            kept.append(index)
    return kept


def save_png(image: Image.Image, path: Path, made_by: Mapping[str, Any] | None = None) -> None:
    """Write a PNG, creating its folder. `made_by`, JSON values, are written into it: see `read_made_by`.

    Viewers show the text chunks Description (the prompt or class, if there is one) and Software.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    chunks = PngInfo()
    if made_by is not None:
        chunks.add_itxt("Software", f"LeanDiT {version('leandit')}")
        if made_by.get("shows"):
            chunks.add_itxt("Description", str(made_by["shows"]))
        chunks.add_itxt(_MADE_BY, json.dumps(made_by, ensure_ascii=False))
    image.save(path, format="PNG", pnginfo=chunks)


def read_made_by(path: str | Path) -> dict[str, Any] | None:
    """Return what made a picture of `leandit sample`: prompt, seed, run, step and settings; None for other PNGs."""
    with Image.open(path) as image:
        written = getattr(image, "text", {}).get(_MADE_BY)
    return None if written is None else json.loads(written)


def data_uri(image: Image.Image, kind: str = "png", **options: Any) -> str:
    """Return the picture as a data URI, for a page. `options` are Pillow's for "png" or "jpeg"."""
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
