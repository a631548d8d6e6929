"""Names of classes: they are readable, can be told apart, and none of them is the number of another class."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from leandit.config import Config
from leandit.errors import LeanDiTError, is_printable


def read_number(text: str) -> int | None:
    """Return the whole number that a text writes in ASCII digits; None for any other text."""
    digits = text.lstrip("0") or "0"
    return int(digits) if text.isascii() and text.isdigit() and len(digits) < 10 else None


def check_class_names(names: Sequence[str], key: str) -> None:
    """Raise LeanDiTError, which names `key`, for class names that people or commands would confuse.

    A name is valid Unicode, printable, and has no space at its ends. Two names differ in more than case, spaces or the
    Unicode form of a character. Commands choose a class by its name or its number, so a name that is the number of
    another class is refused.
    """
    first: dict[str, int] = {}
    for label, name in enumerate(names):
        if problem := _problem(name, label, len(names)):
            raise LeanDiTError(f"{key}: the name of class {label}, {name!r}, {problem}; choose another name")
        plain = unicodedata.normalize("NFKC", name.replace("\u200c", "").replace("\u200d", ""))
        folded = " ".join(plain.casefold().split())
        other = names[first.setdefault(folded, label)]
        if first[folded] != label:
            how = "are the same" if other == name else "differ in case, spaces or Unicode form only"
            raise LeanDiTError(
                f"{key}: the class names {other!a} and {name!a} {how}; rename one, or make them one class"
            )


def check_same_classes(training: Sequence[str], validation: Sequence[str], key: str) -> None:
    """Raise LeanDiTError if a class number means another class in the held-out pictures than in training."""
    if not validation:
        raise LeanDiTError(f"{key}: its pictures have no labels, and those of data.source have {len(training)} classes")
    for label, name in enumerate(validation):
        if label >= len(training) or training[label] != name:
            there = repr(training[label]) if label < len(training) else "unknown"
            raise LeanDiTError(
                f"{key}: its classes are not those of data.source: class {label} is {name!r} here and {there} there; "
                "give both the same classes in the same order (class folders, or class_names)"
            )


def is_asked_for(config: Config, field: str) -> bool:
    """Return whether a setting names a key or a column that is not the usual one, so that it must be there."""
    value = getattr(config, field)
    return value is not None and value != type(config).model_fields[field].default


def _problem(name: str, label: int, count: int) -> str | None:
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "is not valid Unicode"
    if not name.strip():
        return "is empty"
    if not all(map(is_printable, name)):
        return "has characters that cannot be printed"
    if name != name.strip():
        return "has a space at its beginning or end"
    number = read_number(name)
    if number is not None and number < count and number != label:
        return f"is also the number of class {number}"
    return None
