"""Parquet files with a column of pictures, the form of data sets on the Hugging Face hub."""

from __future__ import annotations

import io
import json
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from leandit.config import Fact
from leandit.data.captions import BadCaption, Caption, parse_captions
from leandit.data.classes import is_asked_for
from leandit.data.jsonl import MAX_CLASSES
from leandit.data.paths import find_shards
from leandit.data.pictures import PILLOW_MAX_PIXELS, decode_picture
from leandit.data.source import SOURCES, Example, Source, SourceConfig, fingerprint
from leandit.errors import LeanDiTError, nearest

# A row group may unpack to this many times its size in the file (pictures do not shrink), or to 256 MiB.
MAX_RATIO = 20
MAX_BYTES_OF_SMALL_GROUPS = 256 * 1024**2
# A file may have as many rows as bytes, or a million.
MAX_ROWS_OF_SMALL_FILES = 1_000_000
_ROWS_PER_PART = 64


@SOURCES.register
class ParquetConfig(SourceConfig):
    """Parquet files that contain pictures: a column of {"bytes", "path"}, as on the hub, or a column of bytes."""

    type: Literal["parquet"] = "parquet"
    paths: Annotated[tuple[str, ...], Fact.PATH] = Field(min_length=1)
    """Files and wildcards, such as "data/train-*.parquet"."""
    image_column: str = Field("image", min_length=1)
    """Column of the pictures, encoded as PNG, JPEG or another picture format."""
    text_column: str | None = "text"
    """Column of the captions: a text, a list of texts, or a list of {text, weight} in each row. null, or a column that
    the files do not have, gives no captions.
    """
    label_column: str | None = "label"
    """Column of the classes, whole numbers. null, or a column that the files do not have, gives no labels."""
    class_names: tuple[str, ...] | None = Field(None, min_length=1)
    """Class names, in the order of the class numbers. null uses the names in the files' metadata, or "0", "1", ... if
    there are none.
    """
    cached_row_groups: Annotated[int, Fact.MAY_CHANGE] = Field(16, ge=1)
    """Row groups to keep in memory. Training reads rows in random order, and each read loads a whole row group, so keep
    as many as fit into memory.
    """
    max_pixels: Annotated[int, Fact.MAY_CHANGE] = Field(PILLOW_MAX_PIXELS, ge=1, le=PILLOW_MAX_PIXELS)
    """Largest number of pixels of a picture. A larger one is an error, because a small file can unpack to gigabytes."""

    def build(self) -> Source:
        """Open the source."""
        return ParquetSource(self)


class ParquetSource:
    """Rows in the order of the files. Access to a row reads its row group, unless it is cached."""

    def __init__(self, config: ParquetConfig) -> None:
        _import_pyarrow()
        self._config = config
        files = [(path, _read(path, lambda file: file)) for path in find_shards(config.paths, ".parquet")]
        for path, file in files:
            _check_rows(path, file)
        self._columns = self._choose_columns(files)
        self._groups = [(path, group) for path, file in files for group in range(file.num_row_groups)]
        sizes = [file.metadata.row_group(group).num_rows for _, file in files for group in range(file.num_row_groups)]
        self._ends = list(accumulate(sizes))
        if not self._ends or not self._ends[-1]:
            raise LeanDiTError(f"{files[0][0]}: no rows; give other files in data.source.paths")
        self._labels = self._read_labels(files)
        self.class_names = self._name_classes(files)
        self._read_group = lru_cache(maxsize=config.cached_row_groups)(self._load_group)

    @property
    def fingerprint(self) -> str:
        """See `Source`. Rows have no names, so this hashes file names, row group sizes and labels."""
        return fingerprint([[[path.name, group] for path, group in self._groups], self._ends, self._labels])

    def __len__(self) -> int:
        """Return the number of rows in all files."""
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        """Read row `index`."""
        place = bisect_right(self._ends, index)
        row = index - (self._ends[place - 1] if place else 0)
        path, group = self._groups[place]
        key = f"{path.name}[{group}:{row}]"
        table = self._read_group(place)
        image = decode_picture(_image_bytes(table, self._config.image_column, row, key), key, self._config.max_pixels)
        return Example(image, self._labels[index] if self._labels else None, self._captions(table, row, key), key)

    def _choose_columns(self, files: list[tuple[Path, Any]]) -> list[str]:
        """Return the columns to read: those that any file has or that are asked for. Every file must have them."""
        config, found = self._config, {name for _, file in files for name in file.schema_arrow.names}
        columns = [config.image_column]
        for field in ("text_column", "label_column"):
            name = getattr(config, field)
            if name is not None and (name in found or is_asked_for(config, field)):
                columns.append(name)
        for path, file in files:
            names = file.schema_arrow.names
            for column in columns:
                if column not in names:
                    raise LeanDiTError(
                        f"{path}: no column {column!r} (it has {', '.join(names)}).{nearest(column, names)}\n"
                        "Set data.source.image_column, text_column and label_column to the names of the columns"
                    )
            _check_image_type(path, file.schema_arrow.field(config.image_column).type, config.image_column)
        return columns

    def _load_group(self, place: int) -> Any:
        path, group = self._groups[place]
        columns = [name for name in self._columns if name != self._config.label_column]
        return _read(path, lambda file: _unpack(path, file, group, columns))

    def _read_labels(self, files: list[tuple[Path, Any]]) -> list[int] | None:
        column = self._config.label_column
        if column is None or column not in self._columns:
            return None
        labels = []
        for path, _ in files:
            values = _read(path, lambda file: file.read(columns=[column])).column(column).to_pylist()
            for row, value in enumerate(values):
                if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_CLASSES:
                    raise LeanDiTError(
                        f"{path}: row {row}: {column!r} is {value!r}; labels are whole numbers, 0 to {MAX_CLASSES - 1} "
                        "(or set data.source.label_column=null)"
                    )
            labels += values
        return labels

    def _name_classes(self, files: list[tuple[Path, Any]]) -> tuple[str, ...]:
        if self._labels is None:
            return ()
        highest = max(self._labels)
        names = self._config.class_names or self._hub_names(files)
        names = names or tuple(str(number) for number in range(highest + 1))
        if highest >= len(names):
            raise LeanDiTError(f"data.source: label {highest} has no name; class_names has {len(names)}")
        return names

    def _hub_names(self, files: list[tuple[Path, Any]]) -> tuple[str, ...] | None:
        """Return the class names in the files' metadata, which must be the same in all files that have some."""
        column = self._config.label_column
        named = [(path, names) for path, file in files if (names := _hub_names(file.schema_arrow.metadata, column))]
        for path, names in named:
            if names != named[0][1]:
                raise LeanDiTError(
                    f"{path}: its class names ({', '.join(names[:10])}) are not those of {named[0][0].name} "
                    f"({', '.join(named[0][1][:10])}); give files of one data set, or set data.source.class_names"
                )
        return named[0][1] if named else None

    def _captions(self, table: Any, row: int, key: str) -> tuple[Caption, ...]:
        column = self._config.text_column
        if column not in self._columns:
            return ()
        try:
            captions = parse_captions(table.column(column)[row].as_py(), str(column))
        except BadCaption as problem:
            raise LeanDiTError(f"{key}: {problem}; correct the row, or set data.source.text_column") from None
        if not captions:
            raise LeanDiTError(f"{key}: {column!r} is null; write a caption, or remove the row")
        return captions


def _import_pyarrow() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise LeanDiTError(
            f'parquet files need the pyarrow package ({error}); run: pip install "leandit[parquet]"'
        ) from None
    return parquet


def _read(path: Path, use: Any) -> Any:
    """Open the file and apply `use` to its reader. Threads must not share a reader, so each call opens the file."""
    import pyarrow

    try:
        return use(_import_pyarrow().ParquetFile(path))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise LeanDiTError(f"{path}: damaged, truncated or not a parquet file ({reason}); download it again") from None


def _check_rows(path: Path, file: Any) -> None:
    """Refuse a file that repeats a few bytes as billions of rows: even their labels would not fit into memory."""
    rows, size = file.metadata.num_rows, path.stat().st_size
    if rows > max(MAX_ROWS_OF_SMALL_FILES, size):
        raise LeanDiTError(f"{path}: states {rows} rows in {size} bytes, as in a decompression bomb; give another file")


def _unpack(path: Path, file: Any, group: int, columns: list[str]) -> Any:
    """Read a row group in parts, and stop when it has unpacked to far more than it takes up in the file.

    The sizes in the metadata are no bound: one picture in a dictionary can stand for any number of rows.
    """
    import pyarrow

    record = file.metadata.row_group(group)
    chunks = [record.column(i) for i in range(record.num_columns)]
    packed = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns]
    most = max(MAX_BYTES_OF_SMALL_GROUPS, MAX_RATIO * sum(chunk.total_compressed_size for chunk in packed))
    stated = sum(chunk.total_uncompressed_size for chunk in packed)
    parts, size = [], 0
    if stated <= most:
        for part in file.iter_batches(batch_size=_ROWS_PER_PART, row_groups=[group], columns=columns):
            parts.append(part)
            size += part.nbytes
            if size > most:
                break
    if max(stated, size) > most:
        raise LeanDiTError(
            f"{path}: row group {group} unpacks to more than {most} bytes, as in a decompression bomb; write the "
            "file again without repeated pictures, or with smaller row groups"
        )
    return pyarrow.Table.from_batches(parts)


def _check_image_type(path: Path, found: Any, column: str) -> None:
    import pyarrow

    kinds = pyarrow.types
    inner = found
    if kinds.is_struct(found) and found.get_field_index("bytes") >= 0:
        inner = found.field("bytes").type
    if not (kinds.is_binary(inner) or kinds.is_large_binary(inner)):
        raise LeanDiTError(
            f'{path}: column {column!r} contains {found}, not pictures ({{"bytes", "path"}} or bytes); '
            "set data.source.image_column"
        )


def _image_bytes(table: Any, column: str, row: int, key: str) -> io.BytesIO:
    value = table.column(column)[row].as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        where = value.get("path") if isinstance(value, dict) else None
        only = (
            f"names a file ({where!r}) but does not contain it; embed the pictures"
            if where
            else "is null; remove the row"
        )
        raise LeanDiTError(f"{key}: {column!r} {only}")
    return io.BytesIO(data)


def _hub_names(metadata: dict[bytes, bytes] | None, column: str | None) -> tuple[str, ...] | None:
    """Return the class names from the metadata that the datasets library writes, or None if there are none."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(str(name) for name in names) if isinstance(names, list) else None
