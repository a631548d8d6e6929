"""Read and write configurations: JSON as LeanDiT writes it, JSON or TOML as people write it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leandit.config.base import Config
from leandit.config.tree import Tree
from leandit.config.yaml import YamlMistake, read_yaml
from leandit.errors import LeanDiTError

NULL = "null"
"""What stands for null in a TOML file, which has none of its own: a value that is this text."""


def read_tree(path: Path) -> Tree:
    """Read a .json, .toml or .yaml file into plain data; a syntax error names the file and the line.

    In TOML, which has no null, a key whose value is the text "null" is null. YAML is read as people expect it: `no` is
    a text, 1e-3 is a number, a key given twice is an error. Anchors are not read: few lines can stand for gigabytes.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise LeanDiTError(f"{path}: no such configuration file") from None
    except (OSError, ValueError) as error:
        raise LeanDiTError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    language = {".toml": "TOML", ".yaml": "YAML", ".yml": "YAML"}.get(path.suffix, "JSON")
    try:
        tree = _READERS[language](text)
    except YamlMistake as error:
        raise LeanDiTError(f"{path}: not usable YAML: {error}") from None
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise LeanDiTError(f"{path}: not valid {language}: {error}") from None
    except (ValueError, RecursionError):
        raise LeanDiTError(f"{path}: not usable {language}: a number too long or values nested too deep") from None
    if not isinstance(tree, dict):
        raise LeanDiTError(f"{path}: a configuration is a table of keys, not a {type(tree).__name__}")
    return _with_nulls(tree) if language == "TOML" else tree


def _with_nulls(tree: Tree) -> Tree:
    return {
        key: None if value == NULL else _with_nulls(value) if isinstance(value, dict) else _in_list(value)
        for key, value in tree.items()
    }


def _in_list(value: Any) -> Any:
    """Tables in a list have nulls; a text in a list stays a text."""
    return [_with_nulls(item) if isinstance(item, dict) else item for item in value] if type(value) is list else value


_READERS: dict[str, Callable[[str], Any]] = {"TOML": tomllib.loads, "JSON": json.loads, "YAML": read_yaml}


def write_config(config: Config, path: Path) -> None:
    """Write the complete config, defaults included, as indented JSON."""
    path.write_text(json.dumps(config.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
