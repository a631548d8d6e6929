"""Paths as users write them in a configuration."""

from __future__ import annotations

from pathlib import Path

from leandit.errors import LeanDiTError

_MAX_SHOWN = 100


def user_path(text: str, key: str) -> Path:
    """Return the path with ~ expanded. Raises LeanDiTError, which names `key`, if it cannot be a path."""
    try:
        path = Path(text).expanduser()
        path.exists()  # raises for a name that is too long
        if "\0" in text:
            raise ValueError("it contains a null byte")
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise LeanDiTError(f"{key}: {text[:_MAX_SHOWN]!r} is not a valid path: {reason}; correct {key}") from None
    return path
