"""What a key of the configuration means, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from pydantic import BaseModel

from leandit.config.base import Fact
from leandit.config.docs import class_doc, first_sentence
from leandit.config.fields import IDENTITY, ConfigField, fields_of, find
from leandit.config.schema import default_text, type_text

_WIDTH = 100


def describe(root: type[BaseModel], key: str) -> str:
    """Return what `key` means, its type, bounds and default, and whether it may change when a run is resumed.

    For a table of keys, its fields follow. LeanDiTError for an unknown key, with the nearest one.
    """
    found = find(root, key)
    groups = group(found)
    above = found[0].key.rpartition(".")[0]
    beside = {kind for node in (find(root, above) if above else []) for kind in node.kinds}
    named = len(groups) > 1 or beside > {field.owner for field in found}
    return "\n\n".join("\n".join(_lines(same, named)) for same in groups)


def overview(root: type[BaseModel]) -> str:
    """Return all keys of the first level with a sentence each."""
    lines = [line for field in fields_of(root) for line in _field_line(field.key, field.doc, "")]
    return "\n".join([*lines, "", "`leandit config KEY` explains a key, and lists the keys below it."])


def group(fields: Iterable[ConfigField]) -> list[list[ConfigField]]:
    """Put together the fields that read the same, such as a learning rate that several optimisers have."""
    groups: dict[tuple[str, ...], list[ConfigField]] = {}
    for field in fields:
        reads = (field.key, field.doc or "", type_text(field), default_text(field), resume_text(field))
        groups.setdefault(reads, []).append(field)
    return list(groups.values())


def resume_text(field: ConfigField) -> str:
    """Return whether a field may differ when a run is resumed; of a table without facts, that its fields say it."""
    if field.facts:
        return next(fact.value for fact in Fact if fact in field.facts)
    return "its fields say whether they may change" if field.kinds else IDENTITY


def tag_of(kind: type[BaseModel]) -> str | None:
    """Return the value of `type` that chooses this class; None for a class that has no such field."""
    field = kind.model_fields.get("type")
    return field.default if field is not None and isinstance(field.default, str) else None


def _lines(fields: list[ConfigField], named: bool) -> Iterator[str]:
    field = fields[0]
    tags = dict.fromkeys(tag for same in fields if (tag := tag_of(same.owner)))
    yield field.key + (f"   (type = {', '.join(tags)})" if named and tags else "")
    yield from _wrapped(field.doc or "", "  ")
    yield ""
    for title, text in (
        ("type", type_text(field)),
        ("default", default_text(field)),
        ("on resume", resume_text(field)),
    ):
        yield from _wrapped(text, f"  {title:<11}", " " * 13)
    for kind in dict.fromkeys(kind for same in fields for kind in same.kinds):
        tag = tag_of(kind)
        yield ""
        yield from _wrapped(class_doc(kind) or kind.__name__, f"  type = {tag}: " if tag else "  fields: ", "    ")
        for below in fields_of(kind, field):
            if below.name != "type":
                yield from _field_line(below.name, below.doc, "    ")


def _field_line(name: str, doc: str | None, indent: str) -> list[str]:
    return _wrapped(first_sentence(doc or ""), f"{indent}{name:<24} ", " " * (len(indent) + 25))


def _wrapped(text: str, first: str, rest: str | None = None) -> list[str]:
    indent = first if rest is None else rest
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
