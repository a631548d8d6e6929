"""The benchmark's prompts: a fixed list in GenEval's six categories, each worded as a caption of the scenes.

Reference: GenEval, section 3.1, for the categories; the things are those of `leandit.data.scenes`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from leandit.data.scenes.captions import PHRASES, RELATIONS, Category, both, counted, related, single
from leandit.data.scenes.vocabulary import COLOURS, KINDS, MAX_COUNT, SHAPES, is_held_out
from leandit.evaluation.scenes.claims import Claims, parse_claims

_COLOURS = tuple(COLOURS)


@dataclass(frozen=True)
class Prompt:
    """A prompt of the benchmark."""

    text: str
    category: Category
    held_out: bool
    """Whether what it says is a combination that the split "train" of the scenes never shows."""

    @property
    def claims(self) -> Claims:
        """What it claims, read from its text."""
        return parse_claims(self.text)


@lru_cache(maxsize=1)
def benchmark_prompts() -> dict[Category, tuple[Prompt, ...]]:
    """Return the prompts of each category, in an order of which every beginning is a fair mixture."""
    texts = {
        Category.SINGLE_OBJECT: [single(kind, phrase=phrase) for kind in KINDS for phrase in PHRASES],
        Category.TWO_OBJECTS: [both(single(one), single(other)) for one, other in _pairs()],
        Category.COUNTING: list(_counting()),
        Category.COLOURS: [single(kind, colour, p) for kind in SHAPES for colour in COLOURS for p in PHRASES[::3]],
        Category.POSITION: list(_position()),
        Category.ATTRIBUTION: list(_attribution()),
    }
    return {
        category: tuple(sorted((_prompt(text, category) for text in some), key=_shuffled))
        for category, some in texts.items()
    }


def prompts_hash() -> str:
    """Return a hash over all prompts, their categories, and which are held out."""
    lines = [f"{p.category}\t{p.text}\t{p.held_out}" for some in benchmark_prompts().values() for p in some]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _prompt(text: str, category: Category) -> Prompt:
    things = [(claim.kind, claim.colour) for claim in parse_claims(text).things for _ in range(claim.count)]
    return Prompt(text, category, is_held_out(things))


def _shuffled(prompt: Prompt) -> str:
    return hashlib.sha256(prompt.text.encode()).hexdigest()


def _pairs() -> Iterator[tuple[str, str]]:
    """Yield every pair of kinds once, in one order or the other."""
    for place, pair in enumerate(combinations(KINDS, 2)):
        yield pair if place % 2 else pair[::-1]


def _counting() -> Iterator[str]:
    """Yield every kind in every number, and of shapes two colours of each."""
    for count in range(2, MAX_COUNT + 1):
        for place, kind in enumerate(KINDS):
            yield counted(kind, count)
            if kind in SHAPES:
                yield from (counted(kind, count, _COLOURS[(place + 2 * count + i) % 8]) for i in (0, 3))


def _position() -> Iterator[str]:
    """Yield every pair of kinds in a relation without colours, and every pair of shapes in another one with them."""
    shapes = 0
    for place, (one, other) in enumerate(_pairs()):
        yield related(single(one), RELATIONS[place % 4], single(other))
        if one in SHAPES and other in SHAPES:
            colours = _COLOURS[shapes % 8], _COLOURS[(shapes + 1 + shapes // 8) % 8]
            yield related(single(one, colours[0]), RELATIONS[shapes % 4], single(other, colours[1]))
            shapes += 1


def _attribution() -> Iterator[str]:
    """Yield every pair of shapes in five pairs of colours."""
    for place, (one, other) in enumerate(combinations(SHAPES, 2)):
        for turn in range(5):
            first = (place + 3 * turn) % 8
            second = (first + 1 + (place + turn) % 7) % 8
            yield both(single(one, _COLOURS[first]), single(other, _COLOURS[second]))
