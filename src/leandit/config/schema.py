"""The JSON schema of a configuration, with the docstring of each field as its description."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from leandit.config.docs import field_doc
from leandit.config.fields import ConfigField


class _Documented(GenerateJsonSchema):
    """Adds descriptions, and the `$schema` by which an editor knows what the file is."""

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        return {"$schema": self.schema_dialect, **super().generate(schema, mode)}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        described = super().model_schema(schema)
        for name, field in described.get("properties", {}).items():
            if text := field_doc(schema["cls"], name):
                field["description"] = text
            field.pop("title", None)
        return described


def json_schema(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of complete configurations: every registered kind, bounds, defaults and descriptions."""
    return kind.model_json_schema(schema_generator=_Documented)


@cache
def _schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    return kind.model_json_schema()


def type_text(field: ConfigField) -> str:
    """Return what values a field takes, such as `integer >= 1 or null`."""
    schema = _schema_of(field.owner)
    return _text(schema["properties"][field.name], schema.get("$defs", {}))


def default_text(field: ConfigField) -> str:
    """Return the default as JSON; "required" without one, and for a node its kind."""
    if field.info.is_required():
        return "required"
    value = field.info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        tag = getattr(value, "type", None)
        return f"type = {json.dumps(tag)}" if tag else "its fields' defaults"
    items = [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in _items(value)]
    return json.dumps(items if isinstance(value, tuple) else value, ensure_ascii=False)


def _items(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else ()


_BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "multipleOf": "multiple of",
}
_SIZES = {"minItems": ">=", "maxItems": "<=", "minLength": ">=", "maxLength": "<=", "minProperties": ">="}


def _text(schema: dict[str, Any], defs: dict[str, Any]) -> str:
    for choices in ("anyOf", "oneOf"):
        if choices in schema:
            texts = dict.fromkeys(_text(choice, defs) for choice in schema[choices])
            return " or ".join(texts)
    if "$ref" in schema:
        return "table"
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "value")
    if kind == "array":
        parts = schema.get("prefixItems")
        items = f"[{', '.join(_text(p, defs) for p in parts)}]" if parts else f"list of {_text(schema['items'], defs)}"
        return items if parts else items + _bounds(schema, _SIZES, "items")
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"table of {_text(schema['additionalProperties'], defs)}"
    if kind == "string":
        pattern = f" that matches {schema['pattern']}" if "pattern" in schema else ""
        return f"text{pattern}" + _bounds(schema, _SIZES, "characters")
    return {"boolean": "true or false", "object": "table"}.get(kind, kind) + _bounds(schema, _BOUNDS)


def _bounds(schema: dict[str, Any], signs: dict[str, str], unit: str = "") -> str:
    found = [f"{sign} {schema[name]}" for name, sign in signs.items() if name in schema]
    text = ", ".join(found)
    return f" ({text} {unit})" if found and unit else f" {text}" if found else ""
