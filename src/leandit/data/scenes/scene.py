"""Scenes of one to four things that never touch: what is in each is a pure function of (seed, index)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from leandit.data.scenes.vocabulary import BACKGROUNDS, COLOURS, EMOJI, MAX_COUNT, SHAPES, WHITE, is_held_out
from leandit.random import Stream, generator

Split = Literal["train", "held_out", "all"]
RGB = tuple[int, int, int]

# Fractions of the picture's side: between things, and around them. Three pixels of 32 keep blurred things apart.
GAP = 0.1
MARGIN = 0.03
# Sizes of things beside others; a thing alone may be larger.
SIZES = (0.3, 0.39)
SIZES_ALONE = (0.32, 0.56)
# Shares of scenes with one thing, two different ones, and two to four of a kind.
LAYOUTS = (0.3, 0.45, 0.25)
_SHAPE_SHARE = 0.7


@dataclass(frozen=True)
class Thing:
    """One thing in a scene; lengths are fractions of the picture's side, y grows downwards."""

    kind: str
    colour: str | None
    """None for emoji, which have their own."""
    x: float
    y: float
    """Centre."""
    size: float
    """Side of the square that it fills."""


@dataclass(frozen=True)
class Scene:
    """What is to be seen: things with at least `GAP` between their squares, on one background."""

    things: tuple[Thing, ...]
    background: RGB = WHITE


@dataclass(frozen=True)
class Contents:
    """Which scenes are drawn."""

    seed: int = 0
    # "train" has no held-out combination of kind and colour, kind and kind, or kind and number; "held_out" has one.
    split: Split = "train"
    emoji: bool = True
    # Light tints, too, instead of white alone.
    tinted: bool = False


def draw_scene(contents: Contents, index: int) -> Scene:
    """Return scene `index`: the first of its draws that belongs to the split."""
    rng = generator(contents.seed, Stream.SCENE, index)
    background = BACKGROUNDS[int(rng.random() * len(BACKGROUNDS))] if contents.tinted else WHITE
    while True:
        what = _draw_what(rng, contents.emoji)
        if contents.split == "all" or is_held_out(what) == (contents.split == "held_out"):
            break
    places = _draw_places(rng, what)
    things = tuple(Thing(kind, colour, *place) for (kind, colour), place in zip(what, places, strict=True))
    return Scene(things, background)


def _draw_what(rng: np.random.Generator, emoji: bool) -> list[tuple[str, str | None]]:
    """Return (kind, colour) of each thing."""
    layout = rng.random()
    if layout < LAYOUTS[0]:
        return [_draw_thing(rng, emoji)]
    if layout < LAYOUTS[0] + LAYOUTS[1]:
        one = _draw_thing(rng, emoji)
        other = _draw_thing(rng, emoji)
        while other[0] == one[0]:
            other = _draw_thing(rng, emoji)
        return [one, other]
    kind, colour = _draw_thing(rng, emoji)
    count = 2 + int(rng.random() * (MAX_COUNT - 1))
    if colour is not None and rng.random() < 0.25:
        return [(kind, _choose(rng, tuple(COLOURS))) for _ in range(count)]
    return [(kind, colour)] * count


def _draw_thing(rng: np.random.Generator, emoji: bool) -> tuple[str, str | None]:
    if emoji and rng.random() >= _SHAPE_SHARE:
        return _choose(rng, tuple(EMOJI)), None
    return _choose(rng, SHAPES), _choose(rng, tuple(COLOURS))


def _choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.random() * len(options))]


def _draw_places(rng: np.random.Generator, what: list[tuple[str, str | None]]) -> list[tuple[float, float, float]]:
    """Return (x, y, size) of each thing; two different ones are beside or above each other in three of four scenes."""
    if len(what) == 1:
        size = _between(rng, *SIZES_ALONE)
        return [(_inside(rng, MARGIN, 1 - MARGIN, size), _inside(rng, MARGIN, 1 - MARGIN, size), size)]
    if len(what) == 2 and what[0][0] != what[1][0] and rng.random() < 0.75:
        return _aligned(rng)
    cells = rng.permutation(4)[: len(what)]
    return [_in_cell(rng, int(cell)) for cell in cells]


def _aligned(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Return the places of two things in a row or in a column, in either order, hardly shifted across it."""
    first, second = _between(rng, *SIZES), _between(rng, *SIZES)
    slack = 1 - 2 * MARGIN - GAP - first - second
    before, between = sorted((rng.random() * slack, rng.random() * slack))
    along = (MARGIN + before + first / 2, MARGIN + between + first + GAP + second / 2)
    middle = _inside(rng, MARGIN, 1 - MARGIN, max(first, second) + 0.1)
    across = (middle + _between(rng, -0.05, 0.05), middle + _between(rng, -0.05, 0.05))
    places = list(zip(along, across, (first, second), strict=True))
    if rng.random() < 0.5:
        places = [(y, x, size) for x, y, size in places]
    return places[::-1] if rng.random() < 0.5 else places


def _in_cell(rng: np.random.Generator, cell: int) -> tuple[float, float, float]:
    """Return a place in a quarter of the picture."""
    size = _between(rng, *SIZES)
    ends = ((MARGIN, 0.5 - GAP / 2), (0.5 + GAP / 2, 1 - MARGIN))
    return _inside(rng, *ends[cell % 2], size), _inside(rng, *ends[cell // 2], size), size


def _inside(rng: np.random.Generator, low: float, high: float, size: float) -> float:
    """Return a centre for something of that size between two walls."""
    return _between(rng, low + size / 2, high - size / 2)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())
