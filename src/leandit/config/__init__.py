"""Configuration machinery: frozen nodes, `a.b.c=value` overrides, files, differences; nodes sit beside their code."""

from leandit.config.base import Config, one_of
from leandit.config.files import read_tree, write_config
from leandit.config.registry import Registry
from leandit.config.tree import Tree, apply_overrides, diff, validate

__all__ = ["Config", "Registry", "Tree", "apply_overrides", "diff", "one_of", "read_tree", "validate", "write_config"]
