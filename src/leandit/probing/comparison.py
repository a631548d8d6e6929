"""comparison.html: runs side by side on one page, with their curves and the settings in which they differ."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

from leandit.probing.figures import new_figure, plain_legend
from leandit.run.comparison import RunComparison
from leandit.sampling.lettering import drawable

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #8886; padding: .3rem .8rem; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { background: white; border-radius: 8px; height: auto; max-width: 100%; }
"""


def write_comparison(comparison: RunComparison, out: Path) -> Path:
    """Write curves.png and comparison.html, which contains the curves, into the folder `out`; return the page."""
    out.mkdir(parents=True, exist_ok=True)
    picture = _curves(comparison)
    (out / "curves.png").write_bytes(picture)
    page = out / "comparison.html"
    page.write_text(_page(comparison, picture), encoding="utf-8")
    return page


def _curves(comparison: RunComparison) -> bytes:
    """Draw a panel for each number, with one line for each run."""
    names = list(comparison.curves)
    columns = min(2, max(1, len(names)))
    rows = max(1, -(-len(names) // columns))
    figure = new_figure(6.5 * columns, 3.8 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, name in zip(axes, names, strict=False):
        for run, (steps, values) in zip(comparison.runs, comparison.curves[name], strict=True):
            axis.plot(steps, values, label=drawable(str(run.path)), linewidth=1.4)
        axis.set_title(name.replace("_", " "), fontsize=11)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if "loss" in name:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
        else:
            axis.set_ylim(bottom=0)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    if names:
        plain_legend(axes[0], fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()


def _page(comparison: RunComparison, picture: bytes) -> str:
    runs = comparison.runs
    metrics = list(dict.fromkeys(name for run in runs for name in run.evaluation or ()))
    table: dict[str, list[Any]] = {
        "model": [run.model for run in runs],
        "state": [run.state for run in runs],
        "step": [f"{run.step:,} of {run.steps:,}" for run in runs],
        "loss": [run.loss for run in runs],
        "validation loss": [run.validation_loss for run in runs],
        **{name: [(run.evaluation or {}).get(name) for run in runs] for name in metrics},
    }
    settings = {
        key: [json.dumps(value, ensure_ascii=False) for value in each] for key, each in comparison.settings.items()
    }
    heads = [str(run.path) for run in runs]
    uri = base64.b64encode(picture).decode()
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Runs compared</title><style>{_STYLE}</style><h1>Runs compared</h1>{_table(heads, table)}"
        f'<h2>Over the steps</h2><img alt="Curves of all runs" src="data:image/png;base64,{uri}">'
        f"<h2>Settings that differ</h2>{_table(heads, settings) if settings else '<p>None.</p>'}"
        "<p>Numbers of an evaluation are comparable only if they were made alike: "
        "<code>leandit evaluate --compare</code> checks it.</p></html>\n"
    )


def _table(heads: list[str], rows: dict[str, list[Any]]) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in ["", *heads])
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>{''.join(map(_cell, values))}</tr>"
        for name, values in rows.items()
        if any(value is not None for value in values)
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:.4g}</td>'
    return f"<td>{html.escape('' if value is None else str(value))}</td>"
