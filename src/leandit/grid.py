"""Height and width of a picture, in pixels, latents or patches: nothing assumes a square."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def read_size(value: Any) -> int | tuple[int, int]:
    """Return one number for a square and (height, width) for the rest; ValueError for anything else."""
    given = value
    if isinstance(value, str):
        value = re.split(r"\s*[x×]\s*", value.strip().lower())
    sides = [side for each in (value if isinstance(value, Sequence) else [value]) if (side := _side(each)) is not None]
    if len(sides) not in (1, 2) or (isinstance(value, Sequence) and len(sides) != len(value)):
        how = "give one number for a square, or height and width, each at least 1, as in 32, [24, 40] or 24x40"
        raise ValueError(f"{'null' if given is None else shorten(repr(given), 60)} is no size: {how}")
    height, width = sides[0], sides[-1]
    return height if height == width else (height, width)


def _side(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 10**9:
        return None
    return int(value) if value == int(value) else None


_Side = Annotated[int, Field(ge=1)]
Size = Annotated[_Side | tuple[_Side, _Side], BeforeValidator(read_size)]
"""One number for a square, or (height, width); a configuration also takes a text such as 24x40."""


@dataclass(frozen=True)
class Grid:
    """Height and width of a picture, in pixels, latents or patches, whichever its owner counts."""

    height: int
    width: int

    @classmethod
    def of(cls, size: int | tuple[int, int]) -> Grid:
        """Return the grid of one number, a square, or of (height, width)."""
        return cls(size, size) if isinstance(size, int) else cls(*size)

    @property
    def tokens(self) -> int:
        """Places in the grid: height * width."""
        return self.height * self.width

    @property
    def plain(self) -> int | list[int]:
        """One number for a square, else [height, width], as a configuration is written in JSON."""
        return self.height if self.height == self.width else [self.height, self.width]

    def divisible(self, patch_size: int) -> bool:
        """Return whether patches of this size cover the grid."""
        return self.height % patch_size == 0 and self.width % patch_size == 0

    def patches(self, patch_size: int) -> Grid:
        """Return the grid of patches; what does not fill a patch is left out."""
        return Grid(self.height // patch_size, self.width // patch_size)

    def __str__(self) -> str:
        """Return "32" for a square, else "24x40": a configuration reads both."""
        return str(self.height) if self.height == self.width else f"{self.height}x{self.width}"
