"""The plots below a drawing: experts per token against t, and the load of every expert."""

from __future__ import annotations

from typing import Any

import numpy as np

from leandit.app.drawing import Drawing

_GREY = "#8a8f98"
_ACCENT = "#f97316"


def experts_over_time(drawing: Drawing, k: int | float) -> Any:
    """Return a plotly figure: experts per token against t, with one line per layer, the mean, and the budget k."""
    import plotly.graph_objects as go

    assert drawing.trace is not None
    times, means = drawing.trace.by_time()
    figure = go.Figure()
    layers = len(drawing.trace.layers)
    for layer, name in enumerate(drawing.trace.layers):
        line = {"color": _shade(layer, layers), "width": 1.4}
        figure.add_scatter(x=times.tolist(), y=means[:, layer].tolist(), name=name, line=line)
    mean = means.mean(1).tolist()
    figure.add_scatter(x=times.tolist(), y=mean, name="mean", line={"color": _ACCENT, "width": 3})
    figure.add_hline(
        y=k,
        line={"color": _GREY, "dash": "dash", "width": 1},
        annotation={"text": f"k = {k:g}", "x": 0, "xanchor": "left", "yanchor": "bottom"},
    )
    figure.update_xaxes(title="t (0 = picture, 1 = noise)", range=[0, 1])
    figure.update_yaxes(rangemode="tozero")
    return _styled(figure, "Experts per token over time")


def expert_load(drawing: Drawing) -> Any:
    """Return a plotly figure: pairs per expert as a share of all pairs of the layer, over the whole drawing."""
    import plotly.graph_objects as go

    assert drawing.load is not None
    assert drawing.trace is not None
    share = 100 * drawing.load / np.maximum(drawing.load.sum(1, keepdims=True), 1)
    experts = [str(expert) for expert in range(share.shape[1])]
    hover = "%{y}<br>expert %{x}: %{z:.1f} %<extra></extra>"
    bar = {"title": "% of the layer", "thickness": 12, "outlinewidth": 0}
    map_ = go.Heatmap(
        z=share, x=experts, y=drawing.trace.layers, colorscale="Inferno", zmin=0, hovertemplate=hover, colorbar=bar
    )
    figure = go.Figure(map_)
    figure.update_xaxes(title="expert", type="category")
    figure.update_yaxes(autorange="reversed", type="category")
    return _styled(figure, "Load per expert")


def _shade(layer: int, layers: int) -> str:
    import matplotlib

    r, g, b = matplotlib.colormaps["viridis"](0.15 + 0.7 * layer / max(layers - 1, 1), bytes=True)[:3]
    return f"rgba({r},{g},{b},0.75)"


def _styled(figure: Any, title: str) -> Any:
    """Apply the page's style: a transparent background, and grey text that is readable on light and dark pages."""
    figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        font={"color": _GREY, "family": "system-ui, sans-serif", "size": 12},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        height=320,
        margin={"l": 52, "r": 16, "t": 46, "b": 46},
        showlegend=True,
        legend={"orientation": "h", "y": -0.25, "font": {"size": 11}},
    )
    grid = {"gridcolor": "rgba(138,143,152,0.2)", "zerolinecolor": "rgba(138,143,152,0.35)"}
    figure.update_xaxes(**grid)
    figure.update_yaxes(**grid)
    return figure
