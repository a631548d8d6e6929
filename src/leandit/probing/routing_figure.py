"""routing.png: the main numbers of one report, or of two reports in two colours; it needs no browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leandit.probing.figures import RUN_COLOURS, new_figure, plain_legend
from leandit.sampling.lettering import drawable

Report = dict[str, Any]


def plot_routing(reports: Sequence[Report], path: Path) -> None:
    """Write the figure: experts over time, FLOPs, balance, combinations, norms and top tokens, if reported.

    Reference: Expert Race, Table 2 and Figures 5, 6, 7 and 13.
    """
    panels = [panel for part, panel in _PANELS if all(part in report for report in reports)]
    if not panels:
        return
    rows = -(-len(panels) // 3)
    figure = new_figure(13.0, 3.5 * rows)
    axes = figure.subplots(rows, min(3, len(panels)), squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        for report, colour in zip(reports, RUN_COLOURS, strict=False):
            panel(axis, report, colour)
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if len(reports) > 1:
        _name_runs(axes[0], reports)
    figure.savefig(path, dpi=110)


def _name_runs(axis: Any, reports: Sequence[Report]) -> None:
    for report, colour in zip(reports, RUN_COLOURS, strict=False):
        axis.plot([], [], color=colour, label=f"{drawable(report['run']['folder'])}, step {report['run']['step']}")
    plain_legend(axis, fontsize=8)


def _experts(axis: Any, report: Report, colour: str) -> None:
    times, experts = _times(report), np.array(report["timestep"]["experts_per_token"])
    axis.plot(times, experts, color=colour, alpha=0.3, linewidth=1)
    axis.plot(times, experts.mean(1), color=colour, linewidth=2.2)
    axis.axhline(report["run"]["k"], color="gray", linestyle="--", linewidth=1)
    _time_axis(axis, "Experts per token (dashed: k)")


def _flops(axis: Any, report: Report, colour: str) -> None:
    flops = report["timestep"]["flops"]
    axis.plot(_times(report), np.array(flops["per_call"]) / 1e6, color=colour, linewidth=2)
    axis.plot(_times(report), np.array(flops["per_call_at_budget"]) / 1e6, color=colour, linestyle="--", linewidth=1)
    _time_axis(axis, "MFLOPs per picture and evaluation (dashed: at k)")


def _violation(axis: Any, report: Report, colour: str) -> None:
    values = report["layer"]["max_violation"]
    axis.plot(range(len(values)), values, color=colour, marker="o")
    axis.set_title("MaxVio", fontsize=10)
    axis.set_xlabel("layer with experts")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylim(bottom=0)


def _combinations(axis: Any, report: Report, colour: str) -> None:
    for curve in report["layer"]["combination_curve"]:
        axis.plot(np.array(curve) * 100, color=colour, alpha=0.5, linewidth=1)
    axis.axhline(95, color="gray", linestyle="--", linewidth=1)
    axis.set_title("% of co-selections by % of expert pairs", fontsize=10)


def _norms(axis: Any, report: Report, colour: str) -> None:
    norms = report["layer"]["block_norms"]
    axis.plot(norms["stream"], color=colour, marker="o", label="after the block")
    axis.plot(norms["added"], color=colour, marker="o", linestyle=":", label="added by it")
    axis.set_title("L2 norm per token, by block (dotted: added by it)", fontsize=10)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylim(bottom=0)


def _top_tokens(axis: Any, report: Report, colour: str) -> None:
    top = report["layer"]["top_shares"]
    for shares in top["shares"]:
        axis.plot(100 * np.array(top["fractions"]), 100 * np.array(shares), color=colour, alpha=0.5, linewidth=1)
    axis.plot([0, 100], [0, 100], color="gray", linestyle="--", linewidth=1)
    axis.set_title("% of pairs by % of tokens, busiest first", fontsize=10)


_PANELS = (
    *(("timestep", _experts), ("timestep", _flops), ("layer", _violation)),
    *(("layer", _combinations), ("layer", _norms), ("layer", _top_tokens)),
)


def _times(report: Report) -> list[float]:
    return [moment["t"] for moment in report["moments"]]


def _time_axis(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("t  (0 = picture, 1 = noise)")
    axis.set_ylim(bottom=0)
