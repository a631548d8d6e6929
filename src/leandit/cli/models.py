"""`leandit models`: named models and the papers' figures."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from leandit.cli.tables import print_tables
from leandit.presets import MODELS, ModelCard, model_card
from leandit.presets.text_models import TEXT_TOKENS

_WIDTH = 132
_FIGURES = ("total", "paper", "off", "activated", "paper", "off", "GFLOPs")


def run(options: argparse.Namespace) -> int:
    """Print all named models as JSON or as two tables: one for figures of blocks, one for figures of whole models."""
    cards = [model_card(model) for model in MODELS.values()]
    if options.json:
        print(json.dumps([asdict(card) for card in cards], indent=2))
    else:
        itemised = [card for card in cards if card.not_itemised is None]
        sums = [card for card in cards if card.not_itemised is not None]
        print_tables(_blocks_table(itemised), _sums_table(sums), width=_WIDTH)
    return 0


def _blocks_table(cards: list[ModelCard]) -> Table:
    caption = (
        "Parameters are the blocks' weight matrices, as Expert Race counts them (* without routers, as in its "
        "Table 5).\noff: our figure against the paper's. FLOPs: one forward pass over one 256-pixel picture (32 x 32 "
        "latents), two per multiply-add."
    )
    table, names = _table(caption, cards, _FIGURES)
    for card, name in zip(cards, names, strict=True):
        table.add_row(name + ("" if card.counts_routers else " *"), *_figures(card))
    return table


def _sums_table(cards: list[ModelCard]) -> Table:
    caption = (
        "total = blocks + embedders + not itemised. Not itemised: the rest of the papers' totals, derived from them; "
        "for EC-DiT its\ntext encoder (670M) and autoencoder (34M), and 14M. "
        f"FLOPs as above, with {TEXT_TOKENS} text tokens."
    )
    table, names = _table(caption, cards, ("blocks", "embedders", "not itemised", *_FIGURES))
    for card, name in zip(cards, names, strict=True):
        parts = (_billions(value) for value in (card.blocks, card.embedders, card.not_itemised))
        table.add_row(name, *parts, *_figures(card))
    return table


def _table(caption: str, cards: list[ModelCard], columns: tuple[str, ...]) -> tuple[Table, list[str]]:
    """Return a table without rows, whose caption has the cards' notes, and the names of its rows with their marks."""
    notes = list(dict.fromkeys(card.note for card in cards if card.note is not None))
    marks = {note: f"[{number}]" for number, note in enumerate(notes, 1)}
    # The mark of a note, such as [1], is text and not a rich style.
    caption = escape("\n".join([caption, *(f"{mark} {note}" for note, mark in marks.items())]))
    table = Table(caption=caption, caption_justify="left")
    table.add_column("model", no_wrap=True)
    for title in columns:
        table.add_column(title, justify="right")
    return table, [card.name if card.note is None else f"{card.name} {marks[card.note]}" for card in cards]


def _figures(card: ModelCard) -> tuple[str, ...]:
    return (
        *(_billions(card.total), _billions(card.paper_total), _percent(card.residual_total)),
        *(_billions(card.activated), _billions(card.paper_activated), _percent(card.residual_activated)),
        _flops(card),
    )


def _flops(card: ModelCard) -> str:
    return f"{card.flops / 1e9:.1f}"


def _billions(value: float | None) -> str:
    return "" if value is None else f"{value / 1e9:.3f}B"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f} %"
