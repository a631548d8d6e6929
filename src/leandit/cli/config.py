"""`leandit config`: print the schema for editors, a complete configuration with comments, or the meaning of a key."""

from __future__ import annotations

import argparse
import json
from typing import Any

from leandit.config.describe import describe, overview
from leandit.config.plugins import load_plugins
from leandit.config.toml import to_toml
from leandit.errors import printable
from leandit.presets import run_config
from leandit.presets.schema import file_schema
from leandit.run import RunConfig


def run(options: argparse.Namespace) -> int:
    """Print the schema, the configuration or the meaning, as `options.what` says."""
    load_plugins()  # their kinds are listed, too
    if options.what == "schema":
        text = _json(file_schema())
    elif options.what == "doc":
        text = describe(RunConfig, options.key) if options.key else overview(RunConfig)
    else:
        config = run_config(options.preset, options.overrides)
        text = _json(config.model_dump(mode="json")) if options.json else to_toml(config)
    print(printable(text.removesuffix("\n")))
    return 0


def _json(tree: dict[str, Any]) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False)
