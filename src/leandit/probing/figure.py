"""Figures without a display and without matplotlib's global state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches; matplotlib is imported here, since it takes half a second."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_legend(axis: Axes, **options: Any) -> None:
    """Add a legend whose names are taken literally: matplotlib reads text between dollar signs as a formula."""
    for text in axis.legend(**options).get_texts():
        text.set_parse_math(False)
