"""All fields of a configuration, in every kind that its nodes can have."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from leandit.config.base import Fact
from leandit.config.docs import field_doc
from leandit.config.registry import Registry
from leandit.errors import LeanDiTError, nearest

IDENTITY = "must stay the same: another value is another run"


@dataclass(frozen=True)
class ConfigField:
    """A field at a place of the configuration; a key may exist in several kinds of its node, each with a field."""

    key: str
    """Dotted place, such as `model.moe.k`; `N` stands for the number of an item, as in `text.encoders.N.path`."""
    owner: type[BaseModel]
    info: FieldInfo
    facts: frozenset[Fact]
    """Its own facts and those of the nodes above it."""

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]

    @property
    def doc(self) -> str | None:
        """What the field means, on one line."""
        return field_doc(self.owner, self.name)

    @property
    def kinds(self) -> list[type[BaseModel]]:
        """The classes that a node at this place can have; empty for a value."""
        return node_kinds(self.info)[0]

    @property
    def prefix(self) -> str:
        """The key of an item of a list of nodes, and otherwise the key."""
        return f"{self.key}.N" if self.kinds and _is_list(self.info.annotation) else self.key


def walk(kind: type[BaseModel]) -> Iterator[ConfigField]:
    """Yield every field below `kind`, a node before its fields."""
    for field in fields_of(kind):
        yield from _walk(field)


def _walk(field: ConfigField) -> Iterator[ConfigField]:
    yield field
    for kind in field.kinds:
        for below in fields_of(kind, field):
            yield from _walk(below)


def fields_of(kind: type[BaseModel], node: ConfigField | None = None) -> list[ConfigField]:
    """Return the fields of one class, at the place of `node` or at the root."""
    start, facts = (f"{node.prefix}.", node.facts) if node else ("", frozenset())
    return [ConfigField(start + name, kind, info, facts | facts_of(info)) for name, info in kind.model_fields.items()]


def find(kind: type[BaseModel], key: str) -> list[ConfigField]:
    """Return the fields at a dotted key, one for each kind that has it; numbers of items may be left out.

    Raises LeanDiTError for an unknown key, with the nearest one.
    """
    level = fields_of(kind)
    found: list[ConfigField] = []
    parts = [part for part in key.split(".") if part != "N" and not part.isdecimal()]
    for part in parts or [key]:
        found = [field for field in level if field.name == part]
        if not found:
            raise LeanDiTError(f"{key}: unknown key.{nearest_key(kind, part, {field.name for field in level})}")
        level = [below for field in found for node in field.kinds for below in fields_of(node, field)]
    return found


def nearest_key(root: type[BaseModel], name: str, beside: Iterable[str]) -> str:
    """Return a hint for an unknown key: a field of the same table, or else the first of its name in other tables."""
    keys = {field.key for field in walk(root) if field.name == name}
    first = sorted(keys, key=lambda key: (key.count("."), key))[:2]
    return nearest(name, beside) or (f" Did you mean {' or '.join(map(repr, first))}?" if first else "")


def takes_text(kind: type[BaseModel], key: str) -> frozenset[str]:
    """Return "text" if the value at a key is a text, with "null" if null is allowed, too; empty for other values."""
    try:
        annotations = [field.info.annotation for field in find(kind, key)]
    except LeanDiTError:
        return frozenset()  # an unknown key, which validation names
    choices = {choice for annotation in annotations for choice in _choices(annotation)}
    if str not in choices:
        return frozenset()
    return frozenset({"text", "null"} if types.NoneType in choices else {"text"})


def _choices(annotation: Any) -> tuple[Any, ...]:
    """Return the parts of a union, or the annotation alone."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def node_kinds(field: FieldInfo) -> tuple[list[type[BaseModel]], bool]:
    """Return the classes that a field's value can have, and whether a tag in an error's place tells which."""
    registries = [item for item in field.metadata if isinstance(item, Registry)]
    found = [kind for registry in registries for kind in _sorted(registry)] or list(_configs_in(field.annotation))
    return found, len(found) > 1 or bool(registries) or _has_registry(field.annotation)


def _sorted(registry: Registry[Any]) -> list[type[BaseModel]]:
    """Return the kinds by name: they are registered in the order in which modules happen to be imported."""
    return [registry.kinds[tag] for tag in sorted(registry.kinds)]


def _has_registry(annotation: Any) -> bool:
    return isinstance(annotation, Registry) or any(map(_has_registry, typing.get_args(annotation)))


def _configs_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, Registry):
        yield from _sorted(annotation)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) is typing.Annotated and _has_registry(annotation):
        yield from (kind for item in typing.get_args(annotation)[1:] for kind in _configs_in(item))
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, tuple, list):
        for argument in typing.get_args(annotation):
            yield from _configs_in(argument)


def _is_list(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (tuple, list):
        return True
    return any(map(_is_list, typing.get_args(annotation)))


def facts_of(field: FieldInfo) -> frozenset[Fact]:
    """Return the facts that the declaration of a field carries."""
    return frozenset(item for item in field.metadata if isinstance(item, Fact))


def facts_at(config: BaseModel, key: str) -> frozenset[Fact]:
    """Return the facts of the field at a dotted key, and of the fields above it; empty beyond the end of the config."""
    return frozenset(fact for field in _fields_on(config, key) for fact in facts_of(field))


def _fields_on(node: object, key: str) -> Iterator[FieldInfo]:
    for part in key.split("."):
        if isinstance(node, BaseModel) and part in type(node).model_fields:
            yield type(node).model_fields[part]
            node = getattr(node, part)
        elif isinstance(node, tuple | list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            return
