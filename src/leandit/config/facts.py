"""What the program must know of a config field beside its type and docstring: metadata of the field."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from pydantic import BaseModel
from pydantic.fields import FieldInfo


class Fact(Enum):
    """Why a field may differ when a run is resumed, as in `log_every: Annotated[int, Fact.MAY_CHANGE] = 50`.

    A fact holds for the field and for all fields below it. A field without one is part of the run's identity: with
    another value, the steps of the run would have other results.
    """

    MAY_CHANGE = "may change: no step's result depends on it"
    BACKEND = "may change: results stay the same up to rounding"
    DEVICE = "may change: names a device, and results stay the same up to rounding"
    PATH = "may change if the place has moved: what is there now must have the same fingerprint"
    RUN_LENGTH = "may change if the learning rate does not depend on it"


IDENTITY = "must stay the same: another value is another run"


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
