"""What may be encoded: text, of bounded length."""

from __future__ import annotations

from collections.abc import Sequence

from leandit.errors import LeanDiTError


def check_captions(
    texts: Sequence[object], max_chars: int, allow_empty: bool = True, names: Sequence[str] | None = None
) -> None:
    """Raise a LeanDiTError for the first text that is none, is longer than `max_chars`, or is empty against the rule.

    The empty text is the unconditional caption; a prompt must not be empty (`allow_empty=False`). The error calls a
    text by its name, or by its number without `names`.
    """
    if isinstance(texts, str):
        raise LeanDiTError(f"one text ({texts[:40]!r}) stands where a list of texts belongs; put it in a list")
    for place, text in enumerate(texts):
        problem = _problem(text, max_chars, allow_empty)
        if problem:
            name = names[place] if names else f"caption {place + 1} of {len(texts)}"
            raise LeanDiTError(f"{name}: {problem}")


def _problem(text: object, max_chars: int, allow_empty: bool) -> str | None:
    if not isinstance(text, str):
        return f"{type(text).__name__} is not a text ({str(text)[:40]!r}); write it as a text"
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
