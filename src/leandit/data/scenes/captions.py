"""Captions of scenes, in GenEval's six categories.

A scene has every caption that is true for it. A red circle and a green triangle also have the caption "a circle and a
triangle" and, if the position is clear, "a red circle left of a green triangle".

Reference: GenEval (arXiv 2310.11513), section 3.1, for the categories.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import permutations

from leandit.data.captions import Caption
from leandit.data.scenes.scene import Scene, Thing
from leandit.data.scenes.vocabulary import SHAPES


class Category(StrEnum):
    """GenEval's categories of prompts."""

    SINGLE_OBJECT = "single_object"
    TWO_OBJECTS = "two_objects"
    COUNTING = "counting"
    COLOURS = "colours"
    POSITION = "position"
    ATTRIBUTION = "colour_attribution"


# The first phrase is used for every thing, the others only if a scene has one thing.
PHRASES = ("{a} {thing}", "one {thing}", "a single {thing}", "a picture of {a} {thing}", "a drawing of {a} {thing}")
NUMBERS = {2: "two", 3: "three", 4: "four"}
RELATIONS = ("left of", "right of", "above", "below")
# Two things have a relation along one axis if their offset along the other axis is at most this share of it.
_CLEAR = 0.4


def plural(kind: str) -> str:
    """Return the plural of a kind."""
    return {"cross": "crosses", "strawberry": "strawberries", "fish": "fish"}.get(kind, f"{kind}s")


def single(kind: str, colour: str | None = None, phrase: str = PHRASES[0]) -> str:
    """Return a caption of one thing, such as "an orange circle": single object, or colours if it names the colour."""
    thing = kind if colour is None else f"{colour} {kind}"
    return phrase.format(a="an" if thing[0] in "aeiou" else "a", thing=thing)


def counted(kind: str, count: int, colour: str | None = None) -> str:
    """Return "three blue squares" or "three squares"."""
    return " ".join(word for word in (NUMBERS[count], colour, plural(kind)) if word)


def both(one: str, other: str) -> str:
    """Return a caption of two things, each a caption from `single`: two objects, or colour attribution."""
    return f"{one} and {other}"


def related(one: str, relation: str, other: str) -> str:
    """Return a caption that gives the position of one thing relative to another."""
    return f"{one} {relation} {other}"


def relation_of(one: Thing, other: Thing) -> str | None:
    """Return the position of one thing relative to another, or None if they are diagonal to each other."""
    x, y = one.x - other.x, one.y - other.y
    if abs(y) <= _CLEAR * abs(x):
        return "left of" if x < 0 else "right of"
    if abs(x) <= _CLEAR * abs(y):
        return "above" if y < 0 else "below"
    return None


def captions_of(scene: Scene) -> tuple[Caption, ...]:
    """Return the captions of a scene. Its categories are equally likely, and so are the captions of a category."""
    things = scene.things
    if len(things) == 1:
        said = list(_of_one(things[0]))
    else:
        said = list(_of_several(things) if len({thing.kind for thing in things}) == 1 else _of_two(things))
    categories = [category for category, _ in said]
    return tuple(Caption(text, 1 / categories.count(category)) for category, text in said)


def _of_one(thing: Thing) -> Iterator[tuple[Category, str]]:
    for phrase in PHRASES:
        yield Category.SINGLE_OBJECT, single(thing.kind, phrase=phrase)
        if thing.colour is not None:
            yield Category.COLOURS, single(thing.kind, thing.colour, phrase)


def _of_several(things: tuple[Thing, ...]) -> Iterator[tuple[Category, str]]:
    yield Category.COUNTING, counted(things[0].kind, len(things))
    colours = {thing.colour for thing in things}
    if len(colours) == 1 and None not in colours:
        yield Category.COUNTING, counted(things[0].kind, len(things), things[0].colour)


def _of_two(things: tuple[Thing, ...]) -> Iterator[tuple[Category, str]]:
    for one, other in permutations(things):
        yield Category.TWO_OBJECTS, both(single(one.kind), single(other.kind))
        named = [single(thing.kind, thing.colour) for thing in (one, other)]
        if one.kind in SHAPES and other.kind in SHAPES:
            yield Category.ATTRIBUTION, both(*named)
        relation = relation_of(one, other)
        if relation is not None:
            yield Category.POSITION, related(single(one.kind), relation, single(other.kind))
        if relation is not None and named != [single(one.kind), single(other.kind)]:
            yield Category.POSITION, related(named[0], relation, named[1])
