"""The base of every configuration: complete, frozen, and strict about unknown keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from leandit.errors import nearest


class Config(BaseModel):
    """A frozen node of the configuration tree.

    A node that stands for one of several kinds carries a literal field `type`, its tag. Nodes sit beside the
    code that they configure; a child learns its width from its parent when it is built, so no width is stored
    twice. `replace` returns a changed, validated copy.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, protected_namespaces=()
    )

    def replace(self, **changes: Any) -> Any:
        """Return a validated copy with some fields changed."""
        return type(self).model_validate({**self.model_dump(), **changes})


def one_of(names: Iterable[str]) -> Any:
    """Type of a string field whose value must be a key of a table, such as `STRATEGIES`.

    The table is the only place to edit when an entry is added.
    """
    known = tuple(names)

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"{value!r} is not one of {', '.join(known)}.{nearest(value, known)}")
        return value

    return Annotated[str, AfterValidator(check), Field(json_schema_extra={"enum": list(known)})]
