"""Turn plain data into a validated config: every error at once, each with its key and the way out."""

from __future__ import annotations

import copy
import json
import math
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from leandit.config.base import Config
from leandit.config.registry import Registry
from leandit.errors import LeanDiTError, nearest

C = TypeVar("C", bound=Config)
Tree = dict[str, Any]


def validate(kind: type[C], tree: Tree, source: str) -> C:
    """Return `kind` built from `tree`; raise one LeanDiTError that lists every error, prefixed by `source`."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = [f"  {line}" for line in _describe(kind, error)]
        count = f"{len(lines)} error{'s' if len(lines) > 1 else ''}"
        raise LeanDiTError("\n".join([f"{source}: {count} in the configuration", *lines])) from None
    except RecursionError:
        raise _too_deep(source) from None


def apply_overrides(tree: Tree, overrides: Sequence[str]) -> Tree:
    """Return a copy of `tree` with `a.b.c=value` strings applied; values are read as JSON, else as text.

    Setting `a.type` to another kind resets the rest of `a` to that kind's defaults, whatever the order in
    which the overrides are given.
    """
    try:
        result = copy.deepcopy(tree)
    except RecursionError:
        raise _too_deep("the configuration") from None
    pairs = [_split_override(text) for text in overrides]
    for path, value in sorted(pairs, key=_types_first):
        _set(result, path, value)
    return result


def _too_deep(source: str) -> LeanDiTError:
    return LeanDiTError(f"{source}: values nested too deep; no setting has more than a few levels")


def _types_first(override: tuple[list[str], Any]) -> float:
    """Sort key: an outer type before an inner one, which it would reset, and both before everything else."""
    path, _ = override
    return len(path) if path[-1] == "type" else math.inf


def diff(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """Return (key, old value, new value) for every leaf in which two configs differ; absent is None."""
    before = dict(_leaves(old.model_dump(mode="json")))
    after = dict(_leaves(new.model_dump(mode="json")))
    keys = sorted(before.keys() | after.keys())
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def _split_override(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise LeanDiTError(f"override {text!r} is not of the form key.subkey=value, as in optimizer.lr=3e-4")
    try:
        return key.split("."), json.loads(value)
    except (ValueError, RecursionError):  # not JSON, a number too long, or nested too deep
        return key.split("."), None if value == "None" else {"True": True, "False": False}.get(value, value)


def _set(tree: Tree, path: list[str], value: Any) -> None:
    node = tree
    for depth, part in enumerate(path[:-1]):
        child = node.get(part)
        if child is not None and not isinstance(child, dict):
            raise LeanDiTError(
                f"override {'.'.join(path)}: {'.'.join(path[: depth + 1])} is a value, not a group of keys"
            )
        if child is None:
            node[part] = {}
        node = node[part]
    if path[-1] == "type" and node.get("type") != value:
        node.clear()
    node[path[-1]] = value


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, tree


def _describe(kind: type[Config], error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        key, owner = _locate(kind, item["loc"])
        if item["type"] == "extra_forbidden":
            hint = nearest(str(item["loc"][-1]), owner.model_fields if owner else ())
            yield f"{key}: unknown key.{hint}"
        elif item["type"] == "missing":
            yield f"{key}: missing; give it a value"
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = "" if item["type"] == "value_error" else f" (given: {_short(item['input'])})"
            yield f"{key}: {message}{given}" if key else message


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python prints no number of more than some thousand digits
        text = "a number too long to print"
    except RecursionError:
        text = "values nested too deep to print"
    return text if len(text) <= 60 else text[:57] + "..."


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
        candidates, tagged = _candidates(field) if field else ([], False)
    return ".".join(key), owner


def _tag(kind: type[BaseModel]) -> Any:
    field = kind.model_fields.get("type")
    return field.default if field else kind.__name__


def _candidates(field: FieldInfo) -> tuple[list[type[BaseModel]], bool]:
    """Return the classes that a field's value can have, and whether a tag in an error's place tells which."""
    registries = [item for item in field.metadata if isinstance(item, Registry)]
    found = [kind for registry in registries for kind in registry.kinds.values()] or list(_configs_in(field.annotation))
    return found, len(found) > 1 or bool(registries) or _has_registry(field.annotation)


def _has_registry(annotation: Any) -> bool:
    return isinstance(annotation, Registry) or any(map(_has_registry, typing.get_args(annotation)))


def _configs_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, Registry):
        yield from annotation.kinds.values()
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) is typing.Annotated and _has_registry(annotation):
        yield from (kind for item in typing.get_args(annotation)[1:] for kind in _configs_in(item))
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, tuple, list):
        for argument in typing.get_args(annotation):
            yield from _configs_in(argument)
