"""The letters of labels in pictures: a font with most alphabets, and codes for characters that it lacks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from leandit.errors import printable


@lru_cache(maxsize=1)
def _font_file() -> tuple[Path, frozenset[int]]:
    """Return matplotlib's DejaVu Sans (Latin, Greek, Cyrillic, Arabic, Hebrew and more) and the characters it has."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return path, frozenset(FT2Font(str(path)).get_charmap())


def drawable(text: str) -> str:
    """Return the text with a code such as U+732B for each character that the font does not have."""
    if text.isascii():
        return printable(text)
    known = _font_file()[1]
    return "".join(c if ord(c) in known else f"U+{ord(c):04X} " for c in printable(text)).rstrip()


def label_font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's font for ASCII, which needs no import, and DejaVu Sans for other text."""
    return ImageFont.load_default(size=size) if text.isascii() else ImageFont.truetype(str(_font_file()[0]), size)
