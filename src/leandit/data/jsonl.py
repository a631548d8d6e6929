"""Lines of JSON that describe pictures. Each line is one object with captions and a class."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leandit.data.captions import kind
from leandit.data.classes import read_number
from leandit.errors import LeanDiTError, nearest

MAX_CLASSES = 65_536
_MAX_REPORTED = 10

Label = int | str | None


class BadLine(Exception):
    """The message says what is wrong with one line."""


def parse_object(line: str, example: str) -> dict[str, Any]:
    """Return the object in a line. Raises BadLine, which shows `example`, for any other content."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadLine(f"not valid JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError):
        raise BadLine("invalid JSON: a number is too long, or values are nested too deep") from None
    if not isinstance(record, dict):
        raise BadLine(f"not an object; write an object such as {example}")
    return record


def parse_label(record: dict[str, Any], key: str) -> Label:
    """Return the class in a record: a number, a name, or None. Raises BadLine for any other value."""
    label = record.get(key)
    if isinstance(label, str) and read_number(label) is not None:
        raise BadLine(f"{key!r} is the text {label!r}, which is a number too; write a number without quotes, or a name")
    if label is None or isinstance(label, str):
        return label
    if not isinstance(label, int) or isinstance(label, bool):
        raise BadLine(f"{key!r} is {kind(label)}; write a whole number or a name")
    if not 0 <= label < MAX_CLASSES:
        raise BadLine(f"label {label} is out of range: labels are 0 to {MAX_CLASSES - 1}")
    return label


def report(path: Path, problems: Sequence[str]) -> LeanDiTError:
    """Return one error for all problems of a file: the first problems, and the number of further ones."""
    shown = [f"  {problem}" for problem in problems[:_MAX_REPORTED]]
    rest = len(problems) - len(shown)
    plural = "s" * (len(problems) > 1)
    head = f"{path}: {len(problems)} problem{plural}; correct or remove the lines"
    return LeanDiTError("\n".join([head, *shown, *([f"  and {rest} more"] if rest else [])]))


def name_classes(
    labels: Sequence[Label], given: tuple[str, ...] | None, where: Callable[[int], str]
) -> tuple[str, ...]:
    """Return the class names by class number: the given names, or without them the names in the labels.

    Raises LeanDiTError if the given names do not cover every label; `where(i)` is the position of label i for the
    message.
    """
    numbers = [label for label in labels if isinstance(label, int)]
    names = {label for label in labels if isinstance(label, str)}
    if not numbers and not names:
        return ()
    if given is None:
        return tuple(sorted(names)) if names else tuple(str(number) for number in range(max(numbers) + 1))
    known = set(given)
    for place, label in enumerate(labels):
        if isinstance(label, int) and label >= len(given):
            raise LeanDiTError(f"{where(place)}: label {label} has no name; class_names has {len(given)}")
        if isinstance(label, str) and label not in known:
            hint = nearest(label, given)
            raise LeanDiTError(f"{where(place)}: label {label!r} is not in class_names.{hint}")
    return given
