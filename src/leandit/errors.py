"""The exception for mistakes that a user can correct: wrong configuration, bad files, a full disk."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LeanDiTError(Exception):
    """What is wrong, where (file, line, key), what to do. The command line prints it and exits with 2.

    Quoted names, captions and classes are printable: see `printable`.
    """

    def __str__(self) -> str:
        """Return the message, without characters that control a terminal."""
        return printable(super().__str__())


class NotFoundError(LeanDiTError):
    """Something that a configuration names is not on this machine (data, an encoder, a run); a dry run continues."""


def is_printable(character: str) -> bool:
    """Return whether a character can be shown: no control character, no half of a pair, no change of direction."""
    return character.isprintable() or character in "\u200c\u200d"  # the joiners of emoji and of several scripts


def printable(text: str) -> str:
    """Return the text with a code such as \\u001b for each character that cannot be shown. Ends of lines stay."""
    if text.isprintable():
        return text
    codes = {ord(c): f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}" for c in set(text) - {"\n"}}
    return text.translate({number: code for number, code in codes.items() if not is_printable(chr(number))})


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the candidate closest to `name`, or "" if no candidate is close."""
    options = [str(c) for c in candidates]
    lowered = {c.lower(): c for c in options}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f" Did you mean {lowered[close[0]]!r}?" if close else ""


def unknown(kind: str, name: str, candidates: Iterable[str]) -> LeanDiTError:
    """Return the error for an unknown `kind` (preset, model, strategy, ...), with the nearest valid name."""
    options = sorted(str(c) for c in candidates)
    return LeanDiTError(f"unknown {kind} {name!r}.{nearest(name, options)}\nKnown: {', '.join(options)}")
