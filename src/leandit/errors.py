"""The exception for mistakes that a user can correct: wrong configuration, bad files, a full disk."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LeanDiTError(Exception):
    """A message: what is wrong, where (file, line, key), what to do. The command line prints it and exits with 2."""


class NotFoundError(LeanDiTError):
    """Something that a configuration names is not on this machine (data, an encoder, a run); a dry run continues."""


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
