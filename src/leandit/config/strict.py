"""What a value of a setting may be: a number is a number, a text is a text, and a number fits its machine type."""

from __future__ import annotations

from typing import Any

from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from leandit.config.base import Config

MAX_INT = 2**63 - 1
MAX_FLOAT = 3.4028234663852886e38
"""Largest finite float32."""
MIN_FLOAT = 1.1754943508222875e-38
"""Smallest positive float32 of full precision."""

NUMBER_SIZE = "number_size"
"""The kind of error for a number that its machine type cannot hold."""

_SCALARS = ("int", "float", "bool", "str")


def strict(schema: CoreSchema) -> CoreSchema:
    """Return the schema of a class with strict scalars: no true for a number, no text for a number, no 1 for true.

    A whole float such as 1e5 is an integer, as in JSON schemas. Integers fit int64 and floats fit float32, because
    tensors hold them. Lists are accepted for tuples, because JSON has no tuples. Schemas of other classes inside are
    left alone: each class makes its own strict.
    """
    inner: dict[str, Any] = dict(schema)
    while inner["type"] not in ("model", "definitions"):
        inner = inner["schema"]
    if inner["type"] == "definitions":  # what the definitions hold are other classes
        inner = inner["schema"]
    for field in _model_fields(inner).values():
        field["schema"] = _strict(field["schema"])
    return schema


def _model_fields(model: dict[str, Any]) -> dict[str, Any]:
    while model["type"] != "model-fields":
        model = model["schema"]
    fields: dict[str, Any] = model["fields"]
    return fields


def _strict(schema: Any) -> Any:
    """Return a schema with strict scalars at any depth, but not inside other classes."""
    if isinstance(schema, list | tuple):
        return type(schema)(_strict(item) for item in schema)
    if not isinstance(schema, dict) or schema.get("type") in ("model", "definition-ref", "literal"):
        return schema
    if schema.get("type") in _SCALARS and "strict" not in schema:
        return _scalar({**schema, "strict": True})
    keep = ("metadata", "serialization", "ref", "default")
    return {key: value if key in keep else _strict(value) for key, value in schema.items()}


def _scalar(schema: dict[str, Any]) -> Any:
    if schema["type"] == "int":
        bounded = core_schema.no_info_after_validator_function(_fits_int, schema)
        return core_schema.no_info_before_validator_function(_whole, bounded)
    if schema["type"] == "float":
        return core_schema.no_info_after_validator_function(_fits_float, schema)
    if schema["type"] == "str":
        return core_schema.no_info_after_validator_function(_fits_unicode, schema)
    return schema


def _whole(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


def _fits_int(value: int) -> int:
    if not -MAX_INT <= value <= MAX_INT:
        raise PydanticCustomError(NUMBER_SIZE, "must be at most {most} in size", {"most": MAX_INT})
    return value


def _fits_float(value: float) -> float:
    if not (value == 0 or MIN_FLOAT <= abs(value) <= MAX_FLOAT):
        bounds = {"least": f"{MIN_FLOAT:.2g}", "most": f"{MAX_FLOAT:.2g}"}
        raise PydanticCustomError(NUMBER_SIZE, "must be 0, or {least} to {most} in size: it is a float32", bounds)
    return value


def _fits_unicode(value: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise PydanticCustomError("string_unicode", "must be a text of valid Unicode")
    return value


# The package imports this file before any class of settings is defined.
Config.schema_filter = staticmethod(strict)
