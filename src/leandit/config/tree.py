"""Turn plain data into a validated config: every error at once, each with its key and the way out."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from leandit.config.base import Config
from leandit.config.docs import field_doc
from leandit.config.fields import find, nearest_key, node_kinds, takes_text
from leandit.config.plugins import load_plugins
from leandit.config.wording import counted, hint, reason, short, without_consequences
from leandit.errors import LeanDiTError

C = TypeVar("C", bound=Config)
Tree = dict[str, Any]
_MAX_ERRORS = 20


def validate(kind: type[C], tree: Tree, source: str) -> C:
    """Return `kind` built from `tree`; raise one LeanDiTError that lists every error, prefixed by `source`.

    The kinds of installed packages (`leandit.config.plugins`) are known.
    """
    load_plugins()
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        found = without_consequences(error.errors(include_url=False))
        lines = [f"  {line}" for line in _describe(kind, found[:_MAX_ERRORS])]
        more = [f"  and {len(found) - len(lines)} more"] if len(found) > len(lines) else []
        heading = f"{source}: {counted(len(found), 'error')} in the configuration"
        raise LeanDiTError("\n".join([heading, *lines, *more])) from None
    except RecursionError:
        raise _too_deep(source) from None


def apply_overrides(tree: Tree, overrides: Sequence[str], kind: type[Config] | None = None) -> Tree:
    """Return a copy of `tree` with `a.b.c=value` strings applied; values are read as JSON, else as text.

    A setting of `kind` that is a text takes the value as it is written, so that `name=007` is the text "007". Setting
    `a.type` to another kind resets the rest of `a` to that kind's defaults, whatever the order in which the overrides
    are given.
    """
    try:
        result = copy.deepcopy(tree)
    except RecursionError:
        raise _too_deep("the configuration") from None
    pairs = [_split_override(text, kind) for text in overrides]
    for path, value in sorted(pairs, key=_types_first):
        _set(result, path, value)
    return result


def _too_deep(source: str) -> LeanDiTError:
    return LeanDiTError(f"{source}: values nested too deep; no setting has more than a few levels")


def _types_first(override: tuple[list[str], Any]) -> float:
    """Sort key: whole tables and types, outer ones before inner ones, which they would reset; then everything else.

    A table stands before its own type, so that both orders of `a={...}` and `a.type=b` mean the same.
    """
    path, value = override
    if path[-1] == "type":
        return len(path) - 0.5  # the depth of its table, and after it
    return len(path) if isinstance(value, dict) else math.inf


def diff(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """Return (key, old value, new value) for every leaf in which two configs differ; absent is None."""
    before = dict(leaves(old.model_dump(mode="json")))
    after = dict(leaves(new.model_dump(mode="json")))
    keys = sorted(before.keys() | after.keys())
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def _split_override(text: str, kind: type[Config] | None) -> tuple[list[str], Any]:
    key, equals, written = text.partition("=")
    if not equals or not all(key.split(".")):
        raise LeanDiTError(f"override {text!r} is not of the form key.subkey=value, as in optimizer.lr=3e-4")
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):  # not JSON, a number too long, or nested too deep
        value = {"None": None, "True": True, "False": False}.get(written, written)
    if kind is not None and (value is None or isinstance(value, bool | int | float)):
        text_or_null = takes_text(kind, key)
        if text_or_null and not (value is None and "null" in text_or_null):
            value = written
    return key.split("."), value


def _set(tree: Tree, path: list[str], value: Any) -> None:
    node: Any = tree
    for depth, part in enumerate(path):
        if isinstance(node, list):
            if not part.isdecimal() or int(part) >= len(node):
                raise LeanDiTError(
                    f"override {'.'.join(path)}: {'.'.join(path[:depth])} is a list of {len(node)}; its items are "
                    f"{'.'.join(path[:depth])}.0 and so on"
                )
        elif not isinstance(node, dict):
            raise LeanDiTError(f"override {'.'.join(path)}: {'.'.join(path[:depth])} is a value, not a group of keys")
        place: Any = int(part) if isinstance(node, list) else part
        if depth == len(path) - 1:
            if part == "type" and node.get("type") != value:
                node.clear()
            node[place] = value
        else:
            if isinstance(node, dict) and node.get(part) is None:
                node[part] = {}
            node = node[place]


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        for place, item in enumerate(tree):
            yield from leaves(item, f"{prefix}.{place}")
    else:
        yield prefix, tree


def _describe(kind: type[Config], errors: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for item in errors:
        key, owner = _locate(kind, item["loc"])
        if item["type"] == "extra_forbidden":
            yield f"{key}: unknown key.{nearest_key(kind, str(item['loc'][-1]), owner.model_fields if owner else ())}"
        elif item["type"] in ("union_tag_invalid", "union_tag_not_found"):
            tags = [str(_tag(node)) for field in find(kind, key) for node in field.kinds]
            yield f"{key}: {_wrong_tag(item.get('ctx', {}).get('tag'), tags)}"
        else:
            has_form = item["type"] == "string_pattern_mismatch"
            message = reason(item, field_doc(owner, key.rpartition(".")[2]) if owner and has_form else None)
            yield f"{key}: {message}" if key else message


def _wrong_tag(tag: str | None, known: list[str]) -> str:
    if tag is None:
        return f"type is missing; choose one of {', '.join(known)}"
    return f"type = {short(tag)} is not one of {', '.join(known)}.{hint(tag, known)}"


def _locate(kind: type[Config], loc: tuple[int | str, ...]) -> tuple[str, type[BaseModel] | None]:
    """Return the dotted key without pydantic's union tags, and the config class that owns its last part."""
    owner: type[BaseModel] | None = kind
    candidates: list[type[BaseModel]] = [kind]
    tagged = False
    key: list[str] = []
    for part in loc:
        if isinstance(part, int):  # a place in a list, whose items are the same candidates
            key.append(str(part))
            continue
        chosen = [c for c in candidates if _tag(c) == part] if tagged else []
        if chosen:
            candidates, tagged = chosen, False
            continue
        owner = candidates[0] if candidates else None
        key.append(str(part))
        field = owner.model_fields.get(str(part)) if owner else None
        candidates, tagged = node_kinds(field) if field else ([], False)
    return ".".join(key), owner


def _tag(kind: type[BaseModel]) -> Any:
    field = kind.model_fields.get("type")
    return field.default if field else kind.__name__
