"""The schema of configuration files accepts what the program accepts, by a checker of its own, and refuses typos."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from leandit.config import apply_overrides
from leandit.config.schema import json_schema
from leandit.config.toml import to_toml
from leandit.models import BACKBONES
from leandit.presets import PRESETS, run_config
from leandit.presets.schema import file_schema
from leandit.run import RunConfig

TYPES = {"integer": int, "number": (int, float), "string": str, "boolean": bool, "array": list, "object": dict}
BOUNDS = {
    "minimum": lambda value, bound: value >= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "pattern": lambda value, bound: re.search(bound, value) is not None,
    "minItems": lambda value, bound: len(value) >= bound,
    "minLength": lambda value, bound: len(value) >= bound,
}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """The part of JSON schema that is in use here."""
    if "$ref" in schema and not fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root):
        return False
    if "anyOf" in schema and not any(fits(value, choice, root) for choice in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(fits(value, choice, root) for choice in schema["oneOf"]) != 1:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    kind = schema.get("type")
    if kind == "null":
        return value is None
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    if any(name in schema and not holds(value, schema[name]) for name, holds in BOUNDS.items()):
        return False
    if isinstance(value, list) and "items" in schema:
        return all(fits(item, schema["items"], root) for item in value)
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        if not set(schema.get("required", ())) <= value.keys():
            return False
        return all(fits(v, known[k], root) if k in known else accepts(v, other, root) for k, v in value.items())
    return True


def accepts(value: Any, schema: Any, root: dict[str, Any]) -> bool:
    return schema if isinstance(schema, bool) else fits(value, schema, root)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return file_schema()


@pytest.mark.parametrize("name", PRESETS)
def test_complete_configs_fit_as_json_and_as_toml(name: str, schema: dict[str, Any]) -> None:
    config, strict = run_config(name), json_schema(RunConfig)
    assert fits(config.model_dump(mode="json"), strict, strict)
    assert fits(config.model_dump(mode="json"), schema, schema)
    assert fits(tomllib.loads(to_toml(config)), schema, schema)


@pytest.mark.parametrize(
    "tree",
    [
        {"preset": "tiny"},
        {"$schema": "x", "preset": "tiny", "model": {"moe": {"k": 1}}, "data": {"image_size": 64}},
        {"preset": "tiny", "model": "DiT-S/4"},
        {"preset": "tiny", "model": {"moe": None}, "train": {"clip": "null"}},
        {"preset": "tiny", "sampling": {"sampler": {"type": "ddim", "steps": 20}}},
    ],
)
def test_files_that_start_from_a_preset_fit(tree: dict[str, Any], schema: dict[str, Any]) -> None:
    assert fits(tree, schema, schema)


@pytest.mark.parametrize(
    "override",
    ["train.stepz=3", "train.steps=0", "model.moe.strategy=x", "sampling.sampler.type=x", "model.type=unet", "pre=1"],
)
def test_mistakes_do_not_fit(override: str, schema: dict[str, Any]) -> None:
    assert not fits(apply_overrides(run_config("tiny").model_dump(mode="json"), [override]), schema, schema)


def test_files_without_a_preset_are_complete_and_kinds_keep_to_their_keys(schema: dict[str, Any]) -> None:
    assert not fits({"name": "x"}, schema, schema)
    assert not fits({"preset": "tiny", "optimizer": {"type": "muon", "beta1": 0.9}}, schema, schema)
    assert not fits({"preset": "tiny", "model": "DiT-S/5"}, schema, schema)


def test_all_that_an_editor_shows_is_there(schema: dict[str, Any]) -> None:
    strict = json_schema(RunConfig)
    assert "$schema" in strict
    assert {kind["properties"]["type"]["const"] for kind in strict["properties"]["model"]["oneOf"]} == {
        *BACKBONES.kinds
    }
    assert strict["properties"]["optimizer"]["discriminator"]["propertyName"] == "type"
    assert schema["$defs"]["TrainConfig"]["properties"]["clip"]["description"].startswith("Largest norm")
