"""Captions of a picture: one or more, each with a weight. Training draws one in proportion to the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

MAX_CAPTIONS = 1000


@dataclass(frozen=True)
class Caption:
    """A text and its weight: how often it is shown, relative to the other captions of the picture."""

    text: str
    weight: float = 1.0


class BadCaption(ValueError):
    """The message says why a value is not a caption or a list of captions."""


def parse_captions(value: object, key: str) -> tuple[Caption, ...]:
    """Return the captions in a value: None, a text, or a list of texts and {"text": ..., "weight": ...}.

    Raises BadCaption, which names `key`, for any other value, for a weight that is not positive and finite, and for a
    blank text, because training uses the empty caption for "no caption".
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return (Caption(_not_blank(value, repr(key))),)
    if not isinstance(value, list):
        raise BadCaption(f"{key!r} is {kind(value)}; write a text or a list of texts")
    if not 0 < len(value) <= MAX_CAPTIONS:
        raise BadCaption(f"{key!r} is a list of {len(value)} captions; give 1 to {MAX_CAPTIONS}")
    return tuple(_parse_one(item, f"{key}[{place}]") for place, item in enumerate(value))


def draw_caption(captions: tuple[Caption, ...], generator: np.random.Generator) -> str:
    """Draw one caption with a probability proportional to its weight, and return its text."""
    sums = list(accumulate(caption.weight for caption in captions))
    place = np.searchsorted(sums, generator.random() * sums[-1], side="right")
    return captions[min(int(place), len(captions) - 1)].text


def kind(value: object) -> str:
    """Return the kind of a JSON value in words, such as "a list"."""
    names = {
        bool: "true or false",
        int: "a number",
        float: "a fraction",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), f"of type {type(value).__name__}")


def _parse_one(item: object, name: str) -> Caption:
    if isinstance(item, str):
        return Caption(_not_blank(item, name))
    if not isinstance(item, dict):
        raise BadCaption(f'{name} is {kind(item)}; write a text, or {{"text": ..., "weight": ...}}')
    text, weight = item.get("text"), item.get("weight", 1.0)
    if set(item) - {"text", "weight"} or not isinstance(text, str):
        raise BadCaption(f'{name} has the keys {", ".join(sorted(item)) or "none"}; write "text" and "weight"')
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1e9 or math.isnan(weight):
        raise BadCaption(f"{name} has the weight {weight!r}; a weight is a number above 0, at most 1e9")
    return Caption(_not_blank(text, name), float(weight))


def _not_blank(text: str, name: str) -> str:
    if not text.strip():
        raise BadCaption(f"{name} is empty")
    return text
