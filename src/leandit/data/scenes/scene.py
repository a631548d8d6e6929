"""Scenes of one to four things that never touch. A scene is a pure function of (seed, index)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from leandit.data.scenes.vocabulary import BACKGROUNDS, COLOURS, EMOJI, MAX_COUNT, SHAPES, WHITE, is_held_out
from leandit.random import Stream, generator

Split = Literal["train", "held_out", "all"]
RGB = tuple[int, int, int]

# Smallest distance between things, and to the border, as fractions of the picture's side. Blurred things stay
# separate at a distance of three pixels of 32.
GAP = 0.1
MARGIN = 0.03
# Sizes of things in scenes with several things, and of a single thing.
SIZES = (0.3, 0.39)
SIZES_ALONE = (0.32, 0.56)
# Shares of scenes with one thing, with two different things, and with two to four things of one kind.
LAYOUTS = (0.3, 0.45, 0.25)
_SHAPE_SHARE = 0.7


@dataclass(frozen=True)
class Thing:
    """One thing in a scene. Lengths are fractions of the picture's side; y grows downwards."""

    kind: str
    colour: str | None
    """None for emoji, which have their own colours."""
    x: float
    y: float
    """Centre of the thing, with `x`."""
    size: float
    """Side of the square around the thing."""


@dataclass(frozen=True)
class Scene:
    """Things on one background, with at least `GAP` between their squares."""

    things: tuple[Thing, ...]
    background: RGB = WHITE


@dataclass(frozen=True)
class Contents:
    """Which scenes `draw_scene` draws."""

    seed: int = 0
    # "train" scenes contain no held-out combination of kind and colour, kind and kind, or kind and number. "held_out"
    # scenes contain at least one.
    split: Split = "train"
    emoji: bool = True
    # Backgrounds are white or a light tint, instead of always white.
    tinted: bool = False


def draw_scene(contents: Contents, index: int) -> Scene:
    """Return scene `index`: the first draw of its generator that belongs to the split."""
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
    """Return (x, y, size) of each thing. Two different things are in a row or a column in three of four scenes."""
    if len(what) == 1:
        size = _between(rng, *SIZES_ALONE)
        return [(_inside(rng, MARGIN, 1 - MARGIN, size), _inside(rng, MARGIN, 1 - MARGIN, size), size)]
    if len(what) == 2 and what[0][0] != what[1][0] and rng.random() < 0.75:
        return _aligned(rng)
    cells = rng.permutation(4)[: len(what)]
    return [_in_cell(rng, int(cell)) for cell in cells]


def _aligned(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Return the places of two things in a row or a column, in either order, with a small shift across it."""
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
    """Return a place in one quarter of the picture."""
    size = _between(rng, *SIZES)
    ends = ((MARGIN, 0.5 - GAP / 2), (0.5 + GAP / 2, 1 - MARGIN))
    return _inside(rng, *ends[cell % 2], size), _inside(rng, *ends[cell // 2], size), size


def _inside(rng: np.random.Generator, low: float, high: float, size: float) -> float:
    """Return a random centre for a thing of this size between two limits."""
    return _between(rng, low + size / 2, high - size / 2)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())
