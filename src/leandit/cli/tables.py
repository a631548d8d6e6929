"""Tables on a terminal or in a pipe."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def plain_table() -> Table:
    """Return a table without lines, for lists such as those of runs and presets."""
    return Table(box=None, pad_edge=False, header_style="bold")


def print_tables(*tables: Table, width: int) -> None:
    """Print tables that are at least `width` columns wide, since rich assumes 80 for a pipe and would cut figures."""
    console = Console(width=max(Console().width, width))
    # Written by print, not by rich: rich itself exits with 1 if the reader of the pipe is gone.
    with console.capture() as rendered:
        for table in tables:
            console.print(table)
    print(rendered.get(), end="")
