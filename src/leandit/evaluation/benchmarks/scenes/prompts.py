"""The benchmark's prompts, in GenEval's six categories, and what a prompt claims, read from its words alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from leandit.data.scenes.captions import NUMBERS, PHRASES, RELATIONS, Category, both, counted, plural, related, single
from leandit.data.scenes.vocabulary import COLOURS, KINDS, MAX_COUNT, SHAPES, is_held_out
from leandit.errors import LeanDiTError


@dataclass(frozen=True)
class Claim:
    """`count` things of a kind, of a colour if the prompt names one."""

    kind: str
    colour: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Claims:
    """The things that a picture must show: one kind, or two kinds, with the relation of the first to the second."""

    things: tuple[Claim, ...]
    relation: str | None = None


_SINGULAR = {kind: kind for kind in KINDS}
_PLURAL = {plural(kind): kind for kind in KINDS}
_ARTICLES = ("a picture of a", "a picture of an", "a drawing of a", "a drawing of an", "a single", "one", "a", "an")
_COUNTS = {word: number for number, word in NUMBERS.items()}


def _any(words: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_ONE = re.compile(rf"(?:{_any(_ARTICLES)}) (?:({_any(COLOURS)}) )?({_any(_SINGULAR)})")
_SEVERAL = re.compile(rf"({_any(_COUNTS)}) (?:({_any(COLOURS)}) )?({_any(_PLURAL)})")
_BETWEEN = re.compile(rf" (and|{_any(RELATIONS)}) ")


def parse_claims(prompt: str) -> Claims:
    """Return the claims of a prompt such as "a red circle left of a cat"; raise LeanDiTError for other wordings."""
    first, *rest = _BETWEEN.split(prompt.strip().lower())
    if not rest:
        return Claims((_parse_thing(first, prompt),))
    if len(rest) != 2:
        raise _unreadable(prompt)
    one, other = _parse_thing(first, prompt), _parse_thing(rest[1], prompt)
    if one.kind == other.kind or max(one.count, other.count) > 1:
        raise _unreadable(prompt)
    return Claims((one, other), None if rest[0] == "and" else rest[0])


def _parse_thing(text: str, prompt: str) -> Claim:
    if found := _ONE.fullmatch(text):
        return Claim(_SINGULAR[found[2]], found[1])
    if found := _SEVERAL.fullmatch(text):
        return Claim(_PLURAL[found[3]], found[2], _COUNTS[found[1]])
    raise _unreadable(prompt)


def _unreadable(prompt: str) -> LeanDiTError:
    return LeanDiTError(
        f"prompt {prompt[:60]!r}: cannot be scored; say 'a red circle', 'three cats', 'a cat and a star' or "
        f"'a cat left of a red star', with the kinds {', '.join(KINDS)} and the colours {', '.join(COLOURS)}"
    )


_COLOURS = tuple(COLOURS)


@dataclass(frozen=True)
class Prompt:
    """A prompt of the benchmark."""

    text: str
    category: Category
    held_out: bool
    """Whether the split "train" of the scenes never shows its combination of things."""

    @property
    def claims(self) -> Claims:
        """What it claims, read from its text."""
        return parse_claims(self.text)


@lru_cache(maxsize=1)
def benchmark_prompts() -> dict[Category, tuple[Prompt, ...]]:
    """Return the prompts of each category, in a mixed order, so that the first N are a fair sample."""
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
