"""Write a routing report into a folder: numbers, page and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leandit.probing.draw import Drawn
from leandit.probing.figures import plot_compute
from leandit.probing.norms import write_json
from leandit.probing.page import can_write_page, write_page
from leandit.probing.routing_figure import plot_routing

# Largest number of rows of maps.png. The page shows all pictures.
_ROWS = 8


def write_report(reports: Sequence[dict[str, Any]], drawn: Sequence[Drawn], out: Path, figures: bool = True) -> bool:
    """Write report.json and, if plotly is installed, report.html; with `figures` also maps.png and routing.png.

    With two reports there is no maps.png. Returns whether the page was written. Raises OSError if the folder cannot be
    written.
    """
    write_json(reports, out)
    if page := can_write_page():
        write_page(reports, [each.pictures for each in drawn], out / "report.html")
    if figures:
        _write_figures(reports, drawn, out)
    return page


def _write_figures(reports: Sequence[dict[str, Any]], drawn: Sequence[Drawn], out: Path) -> None:
    plot_routing(reports, out / "routing.png")
    if len(reports) == 1 and "position" in reports[0] and drawn[0].pictures is not None:
        names = drawn[0].names[:_ROWS]
        plot_compute(drawn[0].trace, drawn[0].pictures[:_ROWS], names, reports[0]["run"]["k"], out / "maps.png")
