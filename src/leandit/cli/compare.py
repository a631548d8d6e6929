"""`leandit compare`: runs side by side, as a table and as a page."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

from rich.markup import escape

from leandit.cli.output import say
from leandit.cli.tables import plain_table, print_tables
from leandit.errors import LeanDiTError, printable
from leandit.probing.comparison import write_comparison
from leandit.run.comparison import compare

_FOLDER = "comparison"


def run(options: argparse.Namespace) -> int:
    """Print what differs, and write the page with the curves."""
    found = compare(options.folders)
    out = _free() if options.out is None else Path(options.out)
    if (out / "comparison.html").exists():
        raise LeanDiTError(f"{out}: has a comparison already; give another folder with --out")
    table = plain_table()
    for title in ("", *(escape(printable(str(each.path))) for each in found.runs)):
        table.add_column(title, overflow="fold")
    table.add_row("step", *(f"{each.step:,}/{each.steps:,}" for each in found.runs))
    for name in ("loss", "validation_loss"):
        numbers = [getattr(each, name) for each in found.runs]
        if any(number is not None for number in numbers):
            table.add_row(name, *("" if number is None else f"{number:.4g}" for number in numbers))
    for key, values in found.settings.items():
        table.add_row(key, *(escape(printable(json.dumps(value, ensure_ascii=False))) for value in values))
    print_tables(table, width=100)
    say(f"\nThe curves on one page: {write_comparison(found, out)}")
    return 0


def _free() -> Path:
    """Return comparison, or the first of comparison-2, ... that does not exist."""
    numbered = (Path(f"{_FOLDER}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([Path(_FOLDER)], numbered) if not path.exists())
