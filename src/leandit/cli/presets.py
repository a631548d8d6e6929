"""`leandit presets`: what can be trained by name."""

from __future__ import annotations

import argparse
import json
from typing import Any

from leandit.cli.tables import plain_table, print_tables
from leandit.config.docs import first_sentence
from leandit.presets import PRESETS


def run(options: argparse.Namespace) -> int:
    """Print all presets with what they are, as a table or as JSON."""
    rows = [_row(name) for name in PRESETS]
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = plain_table()
    for title in ("preset", "what it is", "model", "steps"):
        table.add_column(title, justify="right" if title == "steps" else "left", overflow="fold")
    for row in rows:
        table.add_row(row["preset"], row["what it is"], row["model"], f"{row['steps']:,}")
    print_tables(table, width=130)
    print("\nTrain one with `leandit train PRESET`; `leandit config show PRESET` prints all its settings.")
    return 0


def _row(name: str) -> dict[str, Any]:
    config = PRESETS[name]()
    moe = config.model.moe
    experts = "" if moe is None else f", {moe.experts_per_token():g} of {moe.num_experts} experts ({moe.routing_name})"
    return {
        "preset": name,
        "what it is": first_sentence(PRESETS[name].__doc__ or ""),
        "model": f"{config.model.type}{experts}",
        "steps": config.train.steps,
    }
