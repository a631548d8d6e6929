"""The JSON schema of configuration files, with which editors check and complete them."""

from __future__ import annotations

from typing import Any

from leandit.config.files import NULL
from leandit.config.schema import json_schema
from leandit.presets.models import MODELS
from leandit.presets.runs import PRESETS
from leandit.run import RunConfig

_NULL = {"enum": [None, NULL]}


def file_schema() -> dict[str, Any]:
    """Return the schema of the .toml and .json files that `run_config` reads.

    It is the schema of `RunConfig` with `preset` and model names. A file with a preset can state any part of a config,
    so no key is required. Null can be the text "null", because TOML has no null.
    """
    schema = _partial(json_schema(RunConfig))
    complete = [name for name, field in RunConfig.model_fields.items() if field.is_required()]
    keys = schema["properties"]
    named = {"enum": [*MODELS], "description": "A model by name. The data sets its input and its text."}
    keys["model"]["anyOf"] += [named]
    keys["preset"] = {
        "enum": [*PRESETS],
        "description": "The preset that the file changes. Without a preset the file must be complete.",
    }
    keys["$schema"] = {"type": "string", "description": "The location of this schema, for editors."}
    return {**schema, "anyOf": [{"required": ["preset"]}, {"required": complete}]}


def _partial(schema: Any) -> Any:
    """Return the schema of a partial config: no key is required, and a table without `type` can be of any kind."""
    if isinstance(schema, list):
        return [_partial(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "null":
        return _NULL
    part: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):  # the keys inside are names of fields and classes, not schema keywords
            part[key] = {name: _partial(below) for name, below in value.items()}
        elif key == "oneOf":
            part["anyOf"] = _partial(value)
        elif key in ("default", "enum", "const"):
            part[key] = value
        elif key not in ("required", "discriminator"):
            part[key] = _partial(value)
    return part
