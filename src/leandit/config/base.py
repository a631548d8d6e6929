"""The base of every configuration: complete, frozen, strict about unknown keys."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema


class Config(BaseModel):
    """A frozen node of the configuration tree; a node that is one of several kinds has a tag, a literal field `type`.

    Nodes sit beside the code that they configure. A child learns its width when it is built, so none is stored twice.
    Values are strict: `leandit.config.strict` sees to that.
    """

    schema_filter: ClassVar[Callable[[CoreSchema], CoreSchema]] = staticmethod(lambda schema: schema)

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, protected_namespaces=()
    )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return cls.schema_filter(handler(source))

    def replace(self, **changes: Any) -> Any:
        """Return a validated copy with some fields changed."""
        return type(self).model_validate({**self.model_dump(), **changes})


class Fact(Enum):
    """Why a field may differ when a run is resumed, as in `log_every: Annotated[int, Fact.MAY_CHANGE] = 50`.

    A fact holds for all fields below, too. A field without one is part of the run's identity: its steps depend on it.
    """

    MAY_CHANGE = "may change: no step's result depends on it"
    BACKEND = "may change: results stay the same up to rounding"
    DEVICE = "may change: names a device, and results stay the same up to rounding"
    PATH = "may change if the place has moved: what is there now must have the same fingerprint"
    RUN_LENGTH = "may change if the learning rate does not depend on it"
