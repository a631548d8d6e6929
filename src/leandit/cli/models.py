"""`leandit models`: named models and the papers' figures."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leandit.presets import MODELS, ModelCard, model_card
from leandit.presets.text_models import TEXT_TOKENS

_WIDTH = 114


def run(options: argparse.Namespace) -> int:
    """Print all named models as JSON or as two tables: one for figures of blocks, one for figures of whole models."""
    cards = [model_card(model) for model in MODELS.values()]
    if options.json:
        print(json.dumps([asdict(card) for card in cards], indent=2))
    else:
        # Render first and print then: rich itself exits with 1 if the reader of the pipe is gone. rich assumes 80
        # columns for a pipe, which would cut figures.
        console = Console(width=max(Console().width, _WIDTH))
        with console.capture() as rendered:
            console.print(_blocks_table([card for card in cards if card.not_itemised is None]))
            console.print(_sums_table([card for card in cards if card.not_itemised is not None]))
        print(rendered.get(), end="")
    return 0


def _blocks_table(cards: list[ModelCard]) -> Table:
    table = _table(
        "Parameters are the blocks' weight matrices, as Expert Race counts them (* without routers, as in its "
        "Table 5).\nFLOPs: one forward pass over one 256-pixel picture (32 x 32 latents), two per multiply-add.",
        ("total", "paper", "activated", "paper", "GFLOPs"),
    )
    for card in cards:
        table.add_row(card.name + ("" if card.counts_routers else " *"), *_totals(card), _flops(card))
    return table


def _sums_table(cards: list[ModelCard]) -> Table:
    notes = list(dict.fromkeys(card.note for card in cards if card.note is not None))
    marks = {note: f"[{number}]" for number, note in enumerate(notes, 1)}
    table = _table(
        "total = blocks + embedders + not itemised. Not itemised: the rest of the papers' totals, derived from them;\n"
        "for EC-DiT mostly its text encoder (T5, 670M). Its printed totals for XXL and 3XL with 8 and 16 experts\n"
        "are missing here. "
        f"FLOPs as above, with {TEXT_TOKENS} text tokens.\n" + "\n".join(f"{marks[note]} {note}" for note in notes),
        ("blocks", "embedders", "not itemised", "total", "paper", "activated", "paper", "GFLOPs"),
    )
    for card in cards:
        name = card.name if card.note is None else f"{card.name} {marks[card.note]}"
        parts = (_billions(value) for value in (card.blocks, card.embedders, card.not_itemised))
        table.add_row(name, *parts, *_totals(card), _flops(card))
    return table


def _table(caption: str, columns: tuple[str, ...]) -> Table:
    # The mark of a note, such as [1], is text and not a rich style.
    table = Table(caption=escape(caption), caption_justify="left")
    table.add_column("model", no_wrap=True)
    for title in columns:
        table.add_column(title, justify="right")
    return table


def _totals(card: ModelCard) -> tuple[str, ...]:
    figures = (card.total, card.paper_total, card.activated, card.paper_activated)
    return tuple(_billions(value) for value in figures)


def _flops(card: ModelCard) -> str:
    return f"{card.flops / 1e9:.1f}"


def _billions(value: float | None) -> str:
    return "" if value is None else f"{value / 1e9:.3f}B"
