"""A complete configuration as TOML that a person edits: each field with its docstring as a comment."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from leandit.config.docs import field_doc
from leandit.config.files import NULL

_WIDTH = 100
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(config: BaseModel) -> str:
    """Return the config as TOML; TOML has no null, so it is written as "null", which `read_tree` reads as null."""
    return "\n".join(_table(config, "")).strip() + "\n"


def _table(node: BaseModel, key: str) -> Iterator[str]:
    """Yield the values of a table first and the tables in it after them, as TOML wants it."""
    below: list[tuple[str, Any, list[str]]] = []
    for name in type(node).model_fields:
        value, doc = getattr(node, name), _comment(field_doc(type(node), name))
        if isinstance(value, BaseModel | Mapping) or _is_list_of_nodes(value):
            below.append((name, value, doc))
        else:
            yield from (*doc, f"{name} = {_value(value)}")
    for name, value, doc in below:
        place = f"{key}.{name}" if key else name
        yield from ("", *doc)
        if isinstance(value, BaseModel):
            yield f"[{place}]"
            yield from _table(value, place)
        elif isinstance(value, Mapping):
            yield f"[{place}]"
            yield from (f"{_quoted(str(entry))} = {_value(item)}" for entry, item in value.items())
        else:
            for item in value:
                yield f"[[{place}]]"
                yield from _table(item, place)


def _is_list_of_nodes(value: Any) -> bool:
    return isinstance(value, tuple | list) and bool(value) and isinstance(value[0], BaseModel)


def _comment(text: str | None) -> list[str]:
    return textwrap.wrap(text or "", _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _quoted(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    if value is None:
        return json.dumps(NULL)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's texts, numbers and truth values are TOML's, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
