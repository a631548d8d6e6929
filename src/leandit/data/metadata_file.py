"""The records of metadata.jsonl or metadata.csv, in the form of Hugging Face's imagefolder."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leandit.data.classes import read_number
from leandit.data.jsonl import BadLine, parse_object
from leandit.data.paths import check_plain_file
from leandit.errors import LeanDiTError

NAMES = ("metadata.jsonl", "metadata.csv")
_EXAMPLE = '{"file_name": "a.png"}'

Record = dict[str, Any]


def find_metadata(root: Path) -> Path:
    """Return the path of the one metadata file of a folder. Raises LeanDiTError for none, or for both."""
    found = [root / name for name in NAMES if (root / name).exists()]
    if len(found) > 1:
        raise LeanDiTError(f"{root}: has {NAMES[0]} and {NAMES[1]}; keep one of them")
    if not found:
        raise LeanDiTError(
            f"{root / NAMES[0]}: no such file; write it (or {NAMES[1]}), or read the folder with "
            "data.source.type=class_folder"
        )
    return found[0]


def read_records(path: Path, label_key: str) -> Iterator[tuple[int, Record | BadLine]]:
    """Yield the number of each line and its record, or what is wrong with it.

    In CSV all values are texts: an empty one is none, and digits under `label_key` are a number. Raises LeanDiTError
    for a file that cannot be read.
    """
    check_plain_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise LeanDiTError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    if path.suffix == ".csv":
        yield from _csv(path, text, label_key)
        return
    # Only \n ends a line: splitlines also splits at characters that a JSON string may contain.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, parse_object(line, _EXAMPLE)
            except BadLine as problem:
                yield number, problem


def _csv(path: Path, text: str, label_key: str) -> Iterator[tuple[int, Record | BadLine]]:
    rows = csv.reader(io.StringIO(text), strict=True)
    try:
        header = next(rows, [])
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice or "file_name" not in header:
            problem = f"the column {twice[0]!r} is there twice" if twice else "there is no column 'file_name'"
            raise LeanDiTError(f"{path}: {problem} (the columns are {', '.join(header)}); correct the first line")
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                yield rows.line_num, BadLine(f"{len(row)} values for {len(header)} columns; put commas in quotes")
                continue
            yield rows.line_num, _record(dict(zip(header, row, strict=True)), label_key)
    except csv.Error as error:
        raise LeanDiTError(f"{path}: line {rows.line_num}: not valid CSV: {error}") from None


def _record(cells: dict[str, str], label_key: str) -> Record:
    record: Record = {name: cell for name, cell in cells.items() if cell.strip()}
    number = read_number(record.get(label_key, ""))
    return record if number is None else {**record, label_key: number}
