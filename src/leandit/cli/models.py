"""`leandit models`: named models beside the papers' figures."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from leandit.presets import MODELS, ModelCard, model_card


def run(options: argparse.Namespace) -> int:
    """Print all named models as a table or as JSON."""
    cards = [model_card(model) for model in MODELS.values()]
    if options.json:
        print(json.dumps([asdict(card) for card in cards], indent=2))
    else:
        # Rendered first: rich itself ends the program with 1 when the reader is gone.
        console = Console()
        with console.capture() as rendered:
            console.print(_table(cards))
        print(rendered.get(), end="")
    return 0


def _table(cards: list[ModelCard]) -> Table:
    table = Table(
        caption="Parameters are the blocks' weight matrices, as Expert Race counts them (* without routers, as in its "
        "Table 5).\nFLOPs: one forward pass over one 256-pixel picture (32 x 32 latents), two per multiply-add.",
        caption_justify="left",
    )
    table.add_column("model")
    for title in ("total", "paper", "activated", "paper", "GFLOPs"):
        table.add_column(title, justify="right")
    for card in cards:
        table.add_row(
            card.name + ("" if card.counts_routers else " *"),
            _billions(card.total),
            _billions(card.paper_total),
            _billions(card.activated),
            _billions(card.paper_activated),
            f"{card.flops / 1e9:.1f}",
        )
    return table


def _billions(value: float | None) -> str:
    return "" if value is None else f"{value / 1e9:.3f}B"
