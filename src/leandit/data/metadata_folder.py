"""A folder of pictures with metadata.jsonl or metadata.csv, in the layout of Hugging Face's imagefolder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from leandit.config import Fact
from leandit.data.captions import BadCaption, Caption, kind, parse_captions
from leandit.data.class_folder import list_pictures, open_folder
from leandit.data.classes import is_asked_for
from leandit.data.jsonl import BadLine, Label, name_classes, parse_label, report
from leandit.data.metadata_file import Record, find_metadata, read_records
from leandit.data.pictures import PILLOW_MAX_PIXELS, read_picture
from leandit.data.source import SOURCES, Example, Source, SourceConfig, fingerprint
from leandit.data.summary import PassedOver
from leandit.errors import LeanDiTError, nearest


@SOURCES.register
class MetadataFolderConfig(SourceConfig):
    """A folder with metadata.jsonl. A line is like {"file_name": "a/b.png", "text": "a cat", "label": 3}.

    Or with metadata.csv, whose first line names the columns: file_name, text, label. In metadata.jsonl, for several
    captions write a list of texts, or of {"text": "a cat", "weight": 9} to show some more often.
    """

    type: Literal["metadata_folder"] = "metadata_folder"
    path: Annotated[str, Fact.PATH]
    """The folder. A relative path starts at the current directory; ~ is the home directory."""
    text_key: str = Field("text", min_length=1)
    """Key of the caption in a line, or of a list of captions. If no line has it, the set has no captions."""
    label_key: str = Field("label", min_length=1)
    """Key of the class in a line. The class is a whole number from 0, or a name."""
    class_names: tuple[str, ...] | None = Field(None, min_length=1)
    """Class names, in the order of the class numbers. null uses the sorted names in the file, or "0", "1", ... up to
    the highest number.
    """
    max_pixels: Annotated[int, Fact.MAY_CHANGE] = Field(PILLOW_MAX_PIXELS, ge=1, le=PILLOW_MAX_PIXELS)
    """Largest number of pixels of a picture. A larger one is an error, because a small file can unpack to gigabytes."""

    def build(self) -> Source:
        """Open the source."""
        return MetadataFolderSource(self)


@dataclass(frozen=True)
class _Entry:
    """One valid line of the metadata."""

    line: int
    file_name: str
    captions: tuple[Caption, ...]
    label: Label


class MetadataFolderSource:
    """Pictures in the order of the metadata, each read on access."""

    def __init__(self, config: MetadataFolderConfig) -> None:
        self._root = open_folder(config.path)
        self._max_pixels = config.max_pixels
        path = find_metadata(self._root)
        self._entries = _Reader(self._root, path, config).read()
        self.passed_over = self._count_others(path)
        labels = [entry.label for entry in self._entries]
        self.class_names = name_classes(labels, config.class_names, lambda i: f"{path}: line {self._entries[i].line}")
        self._number = {name: number for number, name in enumerate(self.class_names)}

    def _count_others(self, metadata: Path) -> PassedOver:
        """Count the files of the folder that no line names."""
        passed_over = PassedOver()
        named = {(self._root / entry.file_name).resolve() for entry in self._entries}
        pictures = list_pictures(self._root, passed_over)
        passed_over.without_line = sum((self._root / name).resolve() not in named for name in pictures)
        passed_over.suffixes -= Counter([metadata.suffix])
        return passed_over

    @property
    def fingerprint(self) -> str:
        """See `Source`."""
        return fingerprint(
            [entry.file_name, entry.label, [[caption.text, caption.weight] for caption in entry.captions]]
            for entry in self._entries
        )

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        """Read the picture of line `index`."""
        entry = self._entries[index]
        image = read_picture(self._root / entry.file_name, self._max_pixels)
        label = self._number[entry.label] if isinstance(entry.label, str) else entry.label
        return Example(image, label, entry.captions, entry.file_name)


class _Reader:
    """Reads the whole metadata file and reports all its problems in one error."""

    def __init__(self, root: Path, path: Path, config: MetadataFolderConfig) -> None:
        self._root = root
        self._config = config
        self._path = path
        self._entries: list[_Entry] = []
        self._problems: list[str] = []
        self._first_line: dict[Path, int] = {}
        self._keys: set[str] = set()

    def read(self) -> list[_Entry]:
        """Return one entry per line, or raise one LeanDiTError for all bad lines."""
        for number, record in read_records(self._path, self._config.label_key):
            self._read(number, record)
        self._check_complete(lambda entry: bool(entry.captions), self._config.text_key)
        self._check_complete(lambda entry: entry.label is not None, self._config.label_key)
        self._check_one_type()
        if self._problems:
            raise report(self._path, self._problems)
        self._check_asked_for()
        if not self._entries:
            raise LeanDiTError(f"{self._path}: no lines; write one with file_name and text or label for each picture")
        return self._entries

    def _read(self, number: int, record: Record | BadLine) -> None:
        try:
            if isinstance(record, BadLine):
                raise record
            if not isinstance(record.get("file_name"), str) or not record["file_name"]:
                raise BadLine("'file_name' is missing or not a text")
            path = _locate(self._root, record["file_name"])
            self._keys |= record.keys()
            if path in self._first_line:
                raise BadLine(f"{record['file_name']!r} is already named in line {self._first_line[path]}")
            captions = parse_captions(record.get(self._config.text_key), self._config.text_key)
            label = parse_label(record, self._config.label_key)
        except (BadLine, BadCaption) as problem:
            self._problems.append(f"line {number}: {problem}")
            return
        self._first_line[path] = number
        self._entries.append(_Entry(number, record["file_name"], captions, label))

    def _check_complete(self, has: Callable[[_Entry], bool], key: str) -> None:
        without = [entry.line for entry in self._entries if not has(entry)]
        if len(without) < len(self._entries):
            self._problems += [f"line {line}: no {key!r}, though other lines have one" for line in without]

    def _check_asked_for(self) -> None:
        for field in ("text_key", "label_key"):
            key = getattr(self._config, field)
            if self._entries and is_asked_for(self._config, field) and key not in self._keys:
                raise LeanDiTError(
                    f"{self._path}: no line has {key!r} (the keys are {', '.join(sorted(self._keys))})."
                    f"{nearest(key, self._keys)}\nCorrect data.source.{field}"
                )

    def _check_one_type(self) -> None:
        labels = [(entry.line, entry.label) for entry in self._entries if entry.label is not None]
        if labels:
            first_line, first = labels[0]
            self._problems += [
                f"line {line}: label {label!r} is {kind(label)}, but line {first_line} has {kind(first)}"
                for line, label in labels
                if type(label) is not type(first)
            ]


def _locate(root: Path, name: str) -> Path:
    """Return the resolved path of the picture, which must be a non-empty file inside the folder."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise BadLine(f"{name!r} is outside the folder; write a path relative to the folder")
    try:
        path = (root / name).resolve()
        found = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        raise BadLine(f"{name!r} is not a valid file name") from None
    if not path.is_relative_to(root):
        raise BadLine(f"{name!r} is a link to a file outside the folder; copy the picture into it")
    if found is None:
        raise BadLine(f"no such file {name!r}")
    if found == 0:
        raise BadLine(f"{name!r} is an empty file")
    return path
