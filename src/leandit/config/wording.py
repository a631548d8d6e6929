"""What is wrong with the value of a setting, in plain words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from leandit.config.strict import NUMBER_SIZE
from leandit.errors import nearest

_NUMBER, _TEXT, _LIST, _TABLE = "a number", "a text", "a list", "a table of keys"
# Kinds of pydantic's errors to what a value must be. Names in braces are values of the error.
_MUST = {
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": _TEXT,
    "string_sub_type": _TEXT,
    "string_unicode": "a text of valid Unicode",
    "tuple_type": _LIST,
    "list_type": _LIST,
    "dict_type": _TABLE,
    "mapping_type": _TABLE,
    "model_type": _TABLE,
    "model_attributes_type": _TABLE,
    "invalid_key": "a table whose keys are texts",
    "none_required": "null",
}
_LENGTHS = {
    "string_too_short": ("at least", "min_length", "character"),
    "string_too_long": ("at most", "max_length", "character"),
    "too_short": ("at least", "min_length", "entry"),
    "too_long": ("at most", "max_length", "entry"),
}
_MAX_SHOWN = 60


def reason(error: Mapping[str, Any], allowed: str | None = None) -> str:
    """Return what is wrong with a value, for an entry of `ValidationError.errors()`.

    `allowed` is what the documentation of the setting says, for a text of the wrong form.
    """
    kind, given, values = error["type"], short(error["input"]), error.get("ctx", {})
    if kind == "missing":
        return "missing; give it a value"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", values["expected"])
        return f"{given} is not one of {', '.join(known)}.{hint(error['input'], known)}"
    if kind == "string_pattern_mismatch":
        return f"{given} is not allowed. {allowed or 'It must match ' + values['pattern']}"
    if kind in _LENGTHS:
        bound, name, unit = _LENGTHS[kind]
        return f"must have {bound} {counted(values[name], unit)} (given: {given})"
    if kind in _MUST:
        limits = {name: short(_plain_number(value)) for name, value in values.items()}
        return f"must be {_MUST[kind].format(**limits)} (given: {given})"
    if kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    return f"{error['msg'] if kind == NUMBER_SIZE else 'is not a valid value'} (given: {given})"


def short(value: Any) -> str:
    """Return a value as it is written in JSON, on one line and cut if it is long; texts are in single quotes."""
    try:
        text = json.dumps(value) if _is_plain(value) else repr(_beginning(value))
    except (ValueError, TypeError):  # Python prints no number of more than some thousand digits
        text = "a number too long to print"
    except RecursionError:
        text = "values nested too deep to print"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def _plain_number(value: Any) -> Any:
    """Return the bound 0 for 0.0, as a person writes it."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def _beginning(value: Any) -> Any:
    """Return enough of a long text or list for `short`."""
    return value[: _MAX_SHOWN + 1] if isinstance(value, str | list | tuple) else value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def hint(value: Any, known: Sequence[str]) -> str:
    """Return the hint at the nearest known value, or "" for what is not a text."""
    return nearest(value[:_MAX_SHOWN], known) if isinstance(value, str) else ""


def counted(number: int, unit: str) -> str:
    """Return "1 entry" or "2 entries"."""
    plural = {"entry": "entries"}.get(unit, f"{unit}s")
    return f"{number} {unit if number == 1 else plural}"


def without_consequences(errors: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the errors without those of a list's length that only say that its entries are wrong."""
    places = [tuple(error["loc"]) for error in errors]

    def follows(error: Mapping[str, Any]) -> bool:
        own = tuple(error["loc"])
        return any(len(place) > len(own) and place[: len(own)] == own for place in places)

    return [error for error in errors if error["type"] not in ("too_short", "too_long") or not follows(error)]
