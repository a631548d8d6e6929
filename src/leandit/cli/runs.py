"""`leandit runs`: a table of runs."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from typing import Any

from rich.markup import escape

from leandit.cli.tables import plain_table, print_tables
from leandit.errors import printable
from leandit.run.listing import RunSummary, list_runs

_MOST_METRICS = 3


def run(options: argparse.Namespace) -> int:
    """Print the runs as a table, or as JSON with everything that is known of them."""
    runs = list_runs(options.folders or ["runs"])
    if options.json:
        print(json.dumps([_as_json(each) for each in runs], indent=2))
        return 0
    if not runs:
        print("No runs here; train one with `leandit train quickstart`")
        return 0
    metrics = list(dict.fromkeys(name for each in runs for name in each.evaluation or ()))[:_MOST_METRICS]
    table = plain_table()
    for title in ("run", "model", "state"):
        table.add_column(title, overflow="fold")
    for title in ("step", "loss", "validation", *metrics):
        table.add_column(title, justify="right")
    table.add_column("changed")
    for each in runs:
        table.add_row(*map(escape, _cells(each, metrics)))
    print_tables(table, width=120)
    for each in runs:
        if each.problem is not None:
            print(printable(f"damaged: {each.problem}"))
    return 0


def _cells(run: RunSummary, metrics: list[str]) -> list[str]:
    changed = f"{run.changed:%Y-%m-%d %H:%M}"
    if run.state == "damaged":
        return [printable(str(run.path)), "", run.state, "", "", "", *[""] * len(metrics), changed]
    numbers = [run.loss, run.validation_loss, *((run.evaluation or {}).get(name) for name in metrics)]
    shown = ["" if value is None else f"{value:.4g}" for value in numbers]
    return [printable(str(run.path)), run.model, run.state, f"{run.step:,}/{run.steps:,}", *shown, changed]


def _as_json(run: RunSummary) -> dict[str, Any]:
    values = {**asdict(run), "path": str(run.path), "changed": run.changed.isoformat()}
    values["evaluation"] = None if run.evaluation is None else {k: _finite(v) for k, v in run.evaluation.items()}
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: Any) -> Any:
    """Return None for a number that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
