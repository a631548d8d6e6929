"""What may be encoded: text, of bounded length."""

from __future__ import annotations

from collections.abc import Sequence

from leandit.errors import LeanDiTError


def check_captions(texts: Sequence[object], max_chars: int, allow_empty: bool = True) -> None:
    """Raise a LeanDiTError for the first text that is none, is longer than `max_chars`, or is empty against the rule.

    The empty text is the unconditional caption; a prompt must not be empty (`allow_empty=False`).
    """
    if isinstance(texts, str):
        raise LeanDiTError(f"captions are a list of texts, not one text ({texts[:40]!r}); put it in a list")
    for number, text in enumerate(texts, start=1):
        problem = _problem(text, max_chars, allow_empty)
        if problem:
            raise LeanDiTError(f"caption {number} of {len(texts)}: {problem}")


def _problem(text: object, max_chars: int, allow_empty: bool) -> str | None:
    if not isinstance(text, str):
        return f"{type(text).__name__} is not a text ({str(text)[:40]!r}); write every caption as a text"
    if len(text) > max_chars:
        return (
            f"{len(text)} characters are more than max_caption_chars={max_chars} ({text[:40]!r}...); "
            "shorten it, or raise text.max_caption_chars"
        )
    if not allow_empty and not text.strip():
        return "empty; say what to show"
    if any("\ud800" <= char <= "\udfff" for char in text):
        return f"{text[:40]!r} holds half a surrogate pair, so it is no Unicode text; save its source as UTF-8"
    return None
