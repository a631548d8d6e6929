"""Configuration machinery: frozen nodes, `a.b.c=value` overrides, files, differences; nodes sit beside their code.

What documents a configuration is imported by itself, so that a training does not: `leandit.config.describe`,
`leandit.config.schema` and `leandit.config.toml`.
"""

from leandit.config import strict as _strict  # noqa: F401  It makes all classes of settings strict.
from leandit.config.base import Config, Fact
from leandit.config.fields import facts_at, facts_of
from leandit.config.files import read_tree, write_config
from leandit.config.registry import Registry
from leandit.config.tree import Tree, apply_overrides, diff, validate

__all__ = [
    "Config",
    "Fact",
    "Registry",
    "Tree",
    "apply_overrides",
    "diff",
    "facts_at",
    "facts_of",
    "read_tree",
    "validate",
    "write_config",
]
