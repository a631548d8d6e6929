"""The emoji in the package: 2,788 pictures of 32x32 in two art styles, with names. NOTICE has their licences."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from leandit.data.captions import Caption
from leandit.data.source import SOURCES, Example, Source, SourceConfig, fingerprint
from leandit.errors import LeanDiTError, unknown

Style = Literal["noto", "fluent"]
Record = dict[str, Any]


@SOURCES.register
class EmojiConfig(SourceConfig):
    """Which of the package's emoji to use, and how they form classes."""

    type: Literal["emoji"] = "emoji"
    styles: tuple[Style, ...] = Field(("noto", "fluent"), min_length=1)
    """Art styles to use: "noto" is flat, "fluent" looks three-dimensional."""
    classes: dict[str, tuple[str, ...]] | None = Field(None, min_length=1)
    """Classes by name, each with its subcategories, such as {"fruit": ["food-fruit"]}. Pictures of other subcategories
    are not used. null makes each subcategory a class.
    """
    split: Literal["train", "held_out", "all"] = "train"
    """"train" is everything except the "held_out" pictures. About a tenth of the concepts is in "train" in one style
    only and in "held_out" in the other style. "all" is both.
    """
    exclude_names: tuple[str, ...] = ()
    """Do not use pictures whose name contains one of these texts."""
    caption_variants: bool = False
    """Use three captions instead of one: "{name}, {style} emoji", "a picture of {name}" and "{subcategory}: {name}",
    drawn in the ratio 8 : 1 : 1. The last two do not name the style.
    """

    @field_validator("classes")
    @classmethod
    def _disjoint(cls, classes: dict[str, tuple[str, ...]] | None) -> dict[str, tuple[str, ...]] | None:
        gathered = [subcategory for group in (classes or {}).values() for subcategory in group]
        twice = sorted({subcategory for subcategory in gathered if gathered.count(subcategory) > 1})
        if twice:
            raise ValueError(f"a subcategory can belong to one class only; given twice: {', '.join(twice)}")
        return classes

    def build(self) -> Source:
        """Open the source."""
        return EmojiSource(self)


class EmojiSource:
    """The selected emoji, all in memory. The first caption of a picture is like "red apple, noto emoji"."""

    def __init__(self, config: EmojiConfig) -> None:
        images, records = _read_pack()
        groups = _groups(config, records)
        self.class_names = tuple(groups)
        label_of = {sub: label for label, subs in enumerate(groups.values()) for sub in subs}
        chosen = [i for i, record in enumerate(records) if _wanted(config, record, label_of)]
        if not chosen:
            raise LeanDiTError(
                "data.source: no emoji is selected; choose more styles or classes, or shorten exclude_names"
            )
        self._images = images[chosen]
        self._caption_variants = config.caption_variants
        self._records = [records[i] for i in chosen]
        self._labels = [label_of[record["subcategory"]] for record in self._records]

    @property
    def fingerprint(self) -> str:
        """See `Source`."""
        return fingerprint([record["name"], record["style"], record["subcategory"]] for record in self._records)

    def __len__(self) -> int:
        """Return the number of selected pictures."""
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """Return picture `index` of the selected pictures, in the order of their code points."""
        record = self._records[index]
        name, style = record["name"], record["style"]
        captions = _captions(record) if self._caption_variants else _captions(record)[:1]
        return Example(self._images[index], self._labels[index], captions, f"{name} ({style})")


def _captions(record: Record) -> tuple[Caption, ...]:
    name = record["name"]
    return (
        Caption(f"{name}, {record['style']} emoji", 8.0),
        Caption(f"a picture of {name}"),
        Caption(f"{record['subcategory']}: {name}"),
    )


@lru_cache
def _read_pack() -> tuple[np.ndarray, list[Record]]:
    """Return all pictures and their records, to be read only: a process unpacks them once."""
    folder = resources.files("leandit.data") / "emoji"
    try:
        records = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        with (folder / "images.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images = arrays["images"]
    except (OSError, ValueError, KeyError) as error:
        raise LeanDiTError(f"the package's emoji cannot be read ({error}); reinstall leandit") from None
    images.flags.writeable = False
    return images, records


def _groups(config: EmojiConfig, records: list[Record]) -> dict[str, tuple[str, ...]]:
    """Return the subcategories by class name. Labels do not depend on the styles or the split."""
    known = sorted({record["subcategory"] for record in records})
    groups = config.classes or {subcategory: (subcategory,) for subcategory in known}
    for subcategory in (sub for group in groups.values() for sub in group):
        if subcategory not in known:
            raise unknown("emoji subcategory", subcategory, known)
    return groups


def _wanted(config: EmojiConfig, record: Record, label_of: dict[str, int]) -> bool:
    in_split = config.split == "all" or record["held_out"] == (config.split == "held_out")
    named_out = any(part.lower() in record["name"] for part in config.exclude_names)
    return record["style"] in config.styles and record["subcategory"] in label_of and in_split and not named_out
