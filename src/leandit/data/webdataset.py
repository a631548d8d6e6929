"""WebDataset shards: tar files in which the members 000.jpg, 000.txt and 000.cls are one example."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from leandit.config import Fact
from leandit.data.captions import BadCaption, Caption, parse_captions
from leandit.data.classes import is_asked_for
from leandit.data.jsonl import MAX_CLASSES
from leandit.data.paths import find_shards
from leandit.data.pictures import PILLOW_MAX_PIXELS, SUFFIXES, decode_picture
from leandit.data.source import SOURCES, Example, Source, SourceConfig, fingerprint
from leandit.data.tar_index import Member, read_member, scan_tar
from leandit.errors import LeanDiTError


@SOURCES.register
class WebDatasetConfig(SourceConfig):
    """Uncompressed tar shards on this machine. They are indexed at the start and then read in random order."""

    type: Literal["webdataset"] = "webdataset"
    paths: Annotated[tuple[str, ...], Fact.PATH] = Field(min_length=1)
    """Files and wildcards (*, ?, [0-9]), such as "shards/train-*.tar"."""
    captions: Literal["auto", "txt", "json", "none"] = "auto"
    """Member that contains the caption: "txt" is NAME.txt, "json" is `text_key` of NAME.json, "auto" is the first of
    the two that exists, "none" reads no captions.
    """
    text_key: str = Field("text", min_length=1)
    """Key of the caption, or of a list of captions, in NAME.json."""
    class_names: tuple[str, ...] | None = Field(None, min_length=1)
    """Class names, in the order of the class numbers in NAME.cls. null names the classes "0", "1", ..."""
    max_pixels: Annotated[int, Fact.MAY_CHANGE] = Field(PILLOW_MAX_PIXELS, ge=1, le=PILLOW_MAX_PIXELS)
    """Largest number of pixels of a picture. A larger one is an error, because a small file can unpack to gigabytes."""

    def build(self) -> Source:
        """Open the source."""
        return WebDatasetSource(self)


@dataclass
class _Sample:
    """The members of one example. The key is the part of the name after its first dot, in lower case."""

    shard: Path
    stem: str
    members: dict[str, Member] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.shard.name}/{self.stem}"

    def image(self) -> Member:
        found = [member for suffix, member in self.members.items() if f".{suffix}" in SUFFIXES]
        if len(found) != 1:
            names = ", ".join(sorted(member.name for member in found or self.members.values()))
            raise LeanDiTError(
                f"{self.shard}: {self.stem!r} has {len(found)} pictures, not one ({names}); correct the shard"
            )
        return found[0]


class WebDatasetSource:
    """Examples in the order of the shards. Each read opens the shard, so threads do not affect each other."""

    def __init__(self, config: WebDatasetConfig) -> None:
        self._config = config
        self._samples = [sample for path in find_shards(config.paths, ".tar") for sample in _samples(path)]
        self._caption_member = self._choose_captions()
        self._labels = self._read_labels()
        if is_asked_for(config, "text_key") and self._caption_member == "json":
            self._captions(self._samples[0])
        elif is_asked_for(config, "text_key"):
            raise LeanDiTError(
                f"data.source.text_key = {config.text_key!r}, but the captions are "
                f"{'not read' if self._caption_member is None else 'in NAME.txt'}; set data.source.captions=json"
            )
        self.class_names = self._name_classes()

    @property
    def fingerprint(self) -> str:
        """See `Source`. It contains the names of the examples and the labels, not the captions."""
        return fingerprint([[sample.key for sample in self._samples], self._labels])

    def __len__(self) -> int:
        """Return the number of examples in all shards."""
        return len(self._samples)

    def __getitem__(self, index: int) -> Example:
        """Read example `index`."""
        sample = self._samples[index]
        member = sample.image()
        data = read_member(sample.shard, member)
        image = decode_picture(io.BytesIO(data), f"{sample.shard}/{member.name}", self._config.max_pixels)
        return Example(image, self._labels[index] if self._labels else None, self._captions(sample), sample.key)

    def _choose_captions(self) -> str | None:
        choice: str = self._config.captions
        if choice == "auto":
            present = [name for name in ("txt", "json") if any(name in sample.members for sample in self._samples)]
            choice = present[0] if present else "none"
        if choice == "none":
            return None
        self._check_everywhere(choice, "set data.source.captions, or correct the shard")
        return choice

    def _check_everywhere(self, suffix: str, way_out: str) -> None:
        without = [sample for sample in self._samples if suffix not in sample.members]
        if without:
            raise LeanDiTError(
                f"{without[0].shard}: {without[0].stem!r} has no .{suffix}, like {len(without)} of "
                f"{len(self._samples)} examples; {way_out}"
            )

    def _read_labels(self) -> list[int] | None:
        if not any("cls" in sample.members for sample in self._samples):
            return None
        self._check_everywhere("cls", "give labels to all pictures or to none")
        return [_label(sample) for sample in self._samples]

    def _name_classes(self) -> tuple[str, ...]:
        if self._labels is None:
            return ()
        highest = max(self._labels)
        names = self._config.class_names or tuple(str(number) for number in range(highest + 1))
        if highest >= len(names):
            worst = self._samples[self._labels.index(highest)]
            raise LeanDiTError(f"{worst.key}.cls: label {highest} has no name; class_names has {len(names)}")
        return names

    def _captions(self, sample: _Sample) -> tuple[Caption, ...]:
        if self._caption_member is None:
            return ()
        member = sample.members[self._caption_member]
        text, name = _text(sample, member), f"{sample.shard}/{member.name}"
        if self._caption_member == "json":
            return _from_json(name, text, self._config.text_key)
        return _parsed(name, text.rstrip("\r\n"), "caption")


def _samples(path: Path) -> list[_Sample]:
    """Return the examples of a shard in the order of their first members."""
    samples: dict[str, _Sample] = {}
    for member in scan_tar(path):
        folder, _, base = member.name.rpartition("/")
        # Files such as .DS_Store and ._000.jpg come from other programs; a name without a dot has no suffix.
        if base.startswith(".") or "." not in base:
            continue
        start, _, suffix = base.partition(".")
        stem = f"{folder}/{start}" if folder else start
        members = samples.setdefault(stem, _Sample(path, stem)).members
        if suffix.lower() in members:
            raise LeanDiTError(f"{path}: {member.name!r} is in the shard twice; remove one")
        members[suffix.lower()] = member
    if not samples:
        raise LeanDiTError(f"{path}: contains no examples (members such as 000.jpg and 000.txt); give another file")
    for sample in samples.values():
        sample.image()
    return list(samples.values())


def _text(sample: _Sample, member: Member) -> str:
    try:
        return read_member(sample.shard, member, text=True).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LeanDiTError(f"{sample.shard}/{member.name}: not UTF-8 text ({error}); correct the shard") from None


def _label(sample: _Sample) -> int:
    member = sample.members["cls"]
    text = _text(sample, member).strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < MAX_CLASSES):
        raise LeanDiTError(
            f"{sample.shard}/{member.name}: {text[:40]!r} is not a label; "
            f"labels are whole numbers, 0 to {MAX_CLASSES - 1}"
        )
    return int(text)


def _from_json(name: str, text: str, key: str) -> tuple[Caption, ...]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LeanDiTError(f"{name}: not valid JSON ({error}); correct the shard") from None
    if not isinstance(record, dict) or record.get(key) is None:
        keys = ", ".join(record) if isinstance(record, dict) else "none"
        raise LeanDiTError(f"{name}: no caption under {key!r} (keys: {keys}); set data.source.text_key")
    return _parsed(name, record[key], key)


def _parsed(name: str, value: object, key: str) -> tuple[Caption, ...]:
    try:
        return parse_captions(value, key)
    except BadCaption as problem:
        raise LeanDiTError(f"{name}: {problem}; correct the shard, or set data.source.captions=none") from None
