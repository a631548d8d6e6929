"""The kinds and colours of things in scenes, and the combinations that training never shows.

Held out are eight of 48 pairs of shape and colour (every colour once), 12 of 66 pairs of kinds (every kind twice) and
seven of 36 pairs of kind and number. Training shows every kind, colour and number, but not these combinations.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
# Name in captions -> name in the package's emoji. In style "noto" these are recognisable at a third of 32 pixels.
EMOJI = {
    "cat": "cat face",
    "tree": "evergreen tree",
    "burger": "hamburger",
    "car": "automobile",
    "strawberry": "strawberry",
    "fish": "fish",
}
KINDS = (*SHAPES, *EMOJI)
# Different enough to be recognised on a few pixels, also with noise and blur.
COLOURS = {
    "red": (220, 30, 40),
    "orange": (255, 140, 0),
    "yellow": (250, 215, 20),
    "green": (20, 150, 60),
    "blue": (30, 80, 220),
    "purple": (130, 40, 180),
    "pink": (255, 130, 190),
    "black": (25, 25, 25),
}
WHITE = (255, 255, 255)
# White and light tints.
BACKGROUNDS = (WHITE, (242, 242, 242), (255, 246, 228), (230, 242, 255), (236, 250, 232))
MAX_COUNT = 4

HELD_OUT_COLOURS = frozenset((SHAPES[(place + 2) % len(SHAPES)], colour) for place, colour in enumerate(COLOURS))
HELD_OUT_PAIRS = frozenset(
    frozenset((KINDS[i], KINDS[j])) for i, j in combinations(range(len(KINDS)), 2) if j - i in (5, len(KINDS) - 5)
)
HELD_OUT_COUNTS = frozenset(
    (kind, count)
    for place, kind in enumerate(KINDS)
    for count in range(2, MAX_COUNT + 1)
    if (place + 2 * count) % 5 == 0
)


def is_held_out(objects: Sequence[tuple[str, str | None]]) -> bool:
    """Return whether things, as (kind, colour), contain a combination that training never shows.

    A colour of None means that the colour is not known, as in a caption without a colour.
    """
    kinds = [kind for kind, _ in objects]
    return (
        any((kind, colour) in HELD_OUT_COLOURS for kind, colour in objects)
        or any(frozenset(pair) in HELD_OUT_PAIRS for pair in combinations(set(kinds), 2))
        or any((kind, kinds.count(kind)) in HELD_OUT_COUNTS for kind in set(kinds))
    )
