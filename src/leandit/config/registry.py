"""Kinds of a configuration node by their tag, so that one file, also from outside the package, adds a kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from leandit.config.base import Config
from leandit.errors import nearest

C = TypeVar("C", bound=Config)


class Registry(Generic[C]):
    """The kinds of a node, such as all backbones, by the default of their field `type`.

    `@BACKBONES.register` above a config class with a field `type: Literal["dit"] = "dit"` adds it. A field of type
    `Annotated[BackboneConfig, BACKBONES]` takes an instance, or plain data whose `type` names a registered kind.
    """

    def __init__(self, name: str, base: type[C]) -> None:
        self.name = name
        self.base = base
        self.kinds: dict[str, type[C]] = {}

    def register(self, kind: type[C]) -> type[C]:
        """Add a kind and return it; ValueError if its tag belongs to another class, or if it has none."""
        field = kind.model_fields.get("type")
        if field is None or not isinstance(field.default, str):
            raise ValueError(f'{kind.__name__} has no tag: give it a field such as type: Literal["mine"] = "mine"')
        tag = field.default
        other = self.kinds.get(tag)
        if other is not None and (other.__module__, other.__qualname__) != (kind.__module__, kind.__qualname__):
            raise ValueError(f"{self.name} {tag!r} is already {other.__module__}.{other.__qualname__}")
        self.kinds[tag] = kind
        return kind

    def build(self, value: Any) -> C:
        """Return the node that `value` is or describes; pydantic turns what is raised into errors with their keys."""
        if isinstance(value, self.base):
            return value
        known = ", ".join(self.kinds)
        if not isinstance(value, Mapping):
            raise ValueError(f"give a table of keys with a type: {known}")
        tag = value.get("type")
        if not isinstance(tag, str):
            raise ValueError(f"type is {'missing' if tag is None else 'not a text'}; choose one of {known}")
        if tag not in self.kinds:
            own = " (kinds of your own: import their module first; on the command line with --import FILE)"
            raise ValueError(f"type = {tag[:60]!r} is not one of {known}.{nearest(tag[:60], self.kinds) or own}")
        try:
            return self.kinds[tag].model_validate(dict(value))
        except ValidationError as error:
            # The tag, by which messages find the owner of a key, becomes part of the place.
            details: list[InitErrorDetails] = []
            for line in error.errors():
                values = {key: value for key, value in line.get("ctx", {}).items() if key != "error"}
                passed_on = PydanticCustomError(line["type"], "{message}", {**values, "message": line["msg"]})
                details.append({"type": passed_on, "loc": (tag, *line["loc"]), "input": line["input"]})
            raise ValidationError.from_exception_data(self.name, details) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.build,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value, info: value.model_dump(mode=info.mode), info_arg=True
            ),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        choices = [handler(kind.__pydantic_core_schema__) for kind in self.kinds.values()]
        return {"oneOf": choices, "discriminator": {"propertyName": "type"}}
