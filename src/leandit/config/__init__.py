"""Configuration machinery: frozen nodes, overrides, files, differences, documentation; nodes sit beside their code."""

from leandit.config.base import Config, one_of
from leandit.config.describe import describe
from leandit.config.facts import Fact, facts_at, facts_of
from leandit.config.files import read_tree, write_config
from leandit.config.registry import Registry
from leandit.config.schema import json_schema
from leandit.config.toml import to_toml
from leandit.config.tree import Tree, apply_overrides, diff, validate

__all__ = [
    "Config",
    "Fact",
    "Registry",
    "Tree",
    "apply_overrides",
    "describe",
    "diff",
    "facts_at",
    "facts_of",
    "json_schema",
    "one_of",
    "read_tree",
    "to_toml",
    "validate",
    "write_config",
]
