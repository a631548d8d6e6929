"""What a prompt claims to be seen, read from its words alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from leandit.data.scenes.captions import NUMBERS, RELATIONS, plural
from leandit.data.scenes.vocabulary import COLOURS, KINDS
from leandit.errors import LeanDiTError


@dataclass(frozen=True)
class Claim:
    """So many things of a kind, of a colour if one is said."""

    kind: str
    colour: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Claims:
    """All that is to be seen: one kind, or two different ones that may stand in a relation, the first to the second."""

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
    """Return the claims of a prompt such as "a red circle left of a cat"; other wordings are a LeanDiTError."""
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
        f"prompt {prompt[:60]!r}: not one that can be scored; say 'a red circle', 'three cats', 'a cat and a star' or "
        f"'a cat left of a red star', with the kinds {', '.join(KINDS)} and the colours {', '.join(COLOURS)}"
    )
