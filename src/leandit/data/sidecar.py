"""The JSON lines that belong to a shard of latents: captions and a class for each latent, read on access."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from leandit.data.captions import BadCaption, Caption, parse_captions
from leandit.data.jsonl import BadLine, Label, parse_label, parse_object, report
from leandit.errors import LeanDiTError, nearest

_EXAMPLE = '{"text": "a cat", "label": 3}'


@dataclass(frozen=True)
class Sidecar:
    """The checked lines of one file. Memory holds only their offsets, their classes and a hash."""

    path: Path
    text_key: str
    offsets: Int[np.ndarray, " lines"]
    labels: tuple[Label, ...]
    """Empty if the lines have no labels."""
    captioned: bool
    digest: str
    """Hash of all captions and labels."""

    def captions(self, row: int) -> tuple[Caption, ...]:
        """Read the captions of a line. Raises LeanDiTError if the file has changed since it was checked."""
        if not self.captioned:
            return ()
        try:
            with self.path.open("rb") as file:
                file.seek(int(self.offsets[row]))
                record = parse_object(file.readline().decode("utf-8-sig"), _EXAMPLE)
            captions = parse_captions(record.get(self.text_key), self.text_key)
        except (OSError, UnicodeDecodeError, BadLine, BadCaption) as problem:
            raise LeanDiTError(f"{self.path}: changed since it was opened ({problem}); restore it") from None
        return captions


def read_sidecar(path: Path, text_key: str, label_key: str, needed: Sequence[str] = ()) -> Sidecar:
    """Check a whole file. Raises one LeanDiTError for all bad lines, and for a `needed` key that no line has."""
    reader = _Reader(text_key, label_key)
    for number, offset, line in _lines(path):
        try:
            reader.add(offset, line)
        except (BadLine, BadCaption) as problem:
            reader.problems.append(f"line {number}: {problem}")
    if reader.problems:
        raise report(path, reader.problems)
    if reader.offsets and not (reader.captioned or reader.labels):
        raise LeanDiTError(
            f"{path}: no line has {text_key!r} or {label_key!r} (the keys are {_listed(reader.keys)}); write "
            f"{_EXAMPLE}, or set data.source.text_key and label_key to the keys in the file"
        )
    for key in needed:
        if reader.offsets and key not in reader.keys:
            raise LeanDiTError(
                f"{path}: no line has {key!r} (the keys are {_listed(reader.keys)}).{nearest(key, reader.keys)}\n"
                "Correct data.source.text_key or label_key"
            )
    offsets = np.array(reader.offsets, dtype=np.int64)
    return Sidecar(path, text_key, offsets, tuple(reader.labels), reader.captioned, reader.digest.hexdigest())


class _Reader:
    """Collects lines. The first line decides whether all must have captions, and the kind of their labels."""

    def __init__(self, text_key: str, label_key: str) -> None:
        self._text_key = text_key
        self._label_key = label_key
        self._label_type: type | None = None
        self.captioned = False
        self.keys: set[str] = set()
        self.offsets: list[int] = []
        self.labels: list[Label] = []
        self.problems: list[str] = []
        self.digest = hashlib.sha256()

    def add(self, offset: int, line: str) -> None:
        record = parse_object(line, _EXAMPLE)
        self.keys |= record.keys()
        captions = parse_captions(record.get(self._text_key), self._text_key)
        label = parse_label(record, self._label_key)
        label_type = None if label is None else type(label)
        if not self.offsets:
            self.captioned, self._label_type = bool(captions), label_type
        if bool(captions) != self.captioned:
            raise BadLine(f"{_has(self._text_key, bool(captions))}, unlike the first line")
        if label_type is not self._label_type:
            raise BadLine(f"{_has(self._label_key, label is not None)} = {label!r}, unlike the first line")
        self.offsets.append(offset)
        if label is not None:
            self.labels.append(label)
        content = [[[caption.text, caption.weight] for caption in captions], label]
        self.digest.update(json.dumps(content).encode() + b"\n")


def _listed(keys: set[str]) -> str:
    return ", ".join(sorted(keys)) or "none"


def _has(key: str, there: bool) -> str:
    return f"has {key!r}" if there else f"has no {key!r}"


def _lines(path: Path) -> Iterator[tuple[int, int, str]]:
    """Yield the number, the byte offset and the text of each line that is not empty."""
    offset = 0
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig")
                if line.strip():
                    yield number, offset, line
                offset += len(raw)
    except (OSError, UnicodeDecodeError) as error:
        raise LeanDiTError(f"{path}: cannot be read as UTF-8 text: {error}") from None
