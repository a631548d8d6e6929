"""The JSON schema of configuration files, which may start from a preset: what an editor checks and completes with."""

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

    It is that of `RunConfig`, with `preset` and model names. A file with a preset states any part of a config, so no
    key is required in it. Null may be the text "null", for TOML.
    """
    schema = _partial(json_schema(RunConfig))
    complete = [name for name, field in RunConfig.model_fields.items() if field.is_required()]
    keys = schema["properties"]
    named = {"enum": [*MODELS], "description": "A model by its name; its input and text follow the data."}
    keys["model"]["anyOf"] += [named]
    keys["preset"] = {
        "enum": [*PRESETS],
        "description": "The preset that the file changes; without it, it is complete.",
    }
    keys["$schema"] = {"type": "string", "description": "Where this schema is, for editors."}
    return {**schema, "anyOf": [{"required": ["preset"]}, {"required": complete}]}


def _partial(schema: Any) -> Any:
    """Return the schema of a part: nothing is required, and a table without its type fits any kind with its keys."""
    if isinstance(schema, list):
        return [_partial(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "null":
        return _NULL
    part: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):  # names of fields and classes, not words of the schema
            part[key] = {name: _partial(below) for name, below in value.items()}
        elif key == "oneOf":
            part["anyOf"] = _partial(value)
        elif key in ("default", "enum", "const"):
            part[key] = value
        elif key not in ("required", "discriminator"):
            part[key] = _partial(value)
    return part
