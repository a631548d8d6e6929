"""The idx files of MNIST, Fashion-MNIST, EMNIST and similar sets, plain or gzipped."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, cast

import numpy as np
from pydantic import Field

from leandit.config import Fact
from leandit.config.paths import user_path
from leandit.data.captions import Caption
from leandit.data.paths import check_plain_file
from leandit.data.source import SOURCES, Example, Source, SourceConfig, fingerprint
from leandit.errors import LeanDiTError, NotFoundError

MAX_BYTES = 4 * 1024**3
# A gzipped file may unpack to this many times its size, or to 64 MiB. Fashion-MNIST unpacks to 1.8 times its size.
MAX_RATIO = 100
MAX_BYTES_OF_SMALL_FILES = 64 * 1024**2


@SOURCES.register
class IdxConfig(SourceConfig):
    """A pair of idx files."""

    type: Literal["idx"] = "idx"
    images: Annotated[str, Fact.PATH]
    """File of pictures: three dimensions of unsigned bytes, plain or gzipped, such as train-images-idx3-ubyte.gz."""
    labels: Annotated[str | None, Fact.PATH] = None
    """File of labels: one dimension of unsigned bytes, plain or gzipped. null gives no labels."""
    class_names: tuple[str, ...] | None = None
    """Class names, in the order of the labels. They are also the captions. null names the classes "0", "1", ... and
    gives no captions.
    """
    pad: int | None = Field(None, ge=0, le=64)
    """Black pixels to add on each side. null adds 2 to pictures of 28x28, which makes them 32x32, and 0 to others."""

    def build(self) -> Source:
        """Open the source."""
        return IdxSource(self)


class IdxSource:
    """Grey pictures in memory, returned as RGB. With `class_names`, the name of the class is the caption."""

    def __init__(self, config: IdxConfig) -> None:
        self._path = user_path(config.images, "data.source.images")
        images = _read_idx(self._path, dimensions=3, contents="pictures")
        if images.size == 0:
            raise LeanDiTError(f"{self._path}: contains no pictures (shape {images.shape}); give another file")
        pad = config.pad if config.pad is not None else (2 if images.shape[1:] == (28, 28) else 0)
        self._images = np.pad(images, ((0, 0), (pad, pad), (pad, pad)))
        self._labels, self.class_names = self._read_labels(config)
        self._captioned = config.labels is not None and config.class_names is not None

    def _read_labels(self, config: IdxConfig) -> tuple[np.ndarray | None, tuple[str, ...]]:
        if config.labels is None:
            return None, ()
        path = user_path(config.labels, "data.source.labels")
        labels = _read_idx(path, dimensions=1, contents="labels")
        if len(labels) != len(self._images):
            raise LeanDiTError(
                f"{path}: {len(labels)} labels for the {len(self._images)} pictures of {self._path}; "
                "give two files of the same split"
            )
        highest = int(labels.max())
        names = config.class_names or tuple(str(label) for label in range(highest + 1))
        if highest >= len(names):
            raise LeanDiTError(
                f"{path}: label {highest} has no name: class_names has only {len(names)}; "
                f"give at least {highest + 1} names"
            )
        return labels, names

    @property
    def fingerprint(self) -> str:
        """See `Source`."""
        contents = [array for array in (self._images, self._labels) if array is not None]
        return fingerprint([*array.shape, zlib.crc32(array.data)] for array in contents)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        """Return picture `index` of the file."""
        image = np.repeat(self._images[index][..., None], 3, axis=2)
        label = None if self._labels is None else int(self._labels[index])
        captions = (Caption(self.class_names[label]),) if self._captioned and label is not None else ()
        return Example(image, label, captions, f"{self._path.name}[{index}]")


def _read_idx(path: Path, dimensions: int, contents: str) -> np.ndarray:
    """Return the uint8 array of an idx file with this number of dimensions."""
    check_plain_file(path)
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            # GzipFile reads like a binary file, but its type is not BinaryIO.
            file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if zipped else raw
            shape = _read_header(path, file, dimensions, contents)
            return _read_payload(path, file, shape, contents)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LeanDiTError(f"{path}: truncated or damaged gzip file ({error}); download it again") from None
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file of {contents}; correct the path") from None
    except OSError as error:
        raise LeanDiTError(f"{path}: cannot be read: {error}") from None


def _read_header(path: Path, file: BinaryIO, dimensions: int, contents: str) -> tuple[int, ...]:
    header = file.read(4 + 4 * dimensions)
    expected = bytes([0, 0, 8, dimensions])
    if header[:4] != expected:
        raise LeanDiTError(
            f"{path}: not an idx file of {contents}: it starts with {header[:4].hex() or 'nothing'}, not "
            f"{expected.hex()} (unsigned bytes, {dimensions} dimension{'s' * (dimensions > 1)}); "
            "check that images and labels are not swapped"
        )
    if len(header) < 4 + 4 * dimensions:
        raise LeanDiTError(f"{path}: the header is truncated; download the file again")
    return struct.unpack(f">{dimensions}I", header[4:])


def _read_payload(path: Path, file: BinaryIO, shape: tuple[int, ...], contents: str) -> np.ndarray:
    size = 1
    for side in shape:
        size *= side
    if size > MAX_BYTES:
        raise LeanDiTError(f"{path}: the header states {size} bytes, more than {MAX_BYTES}; use a folder of pictures")
    if isinstance(file, gzip.GzipFile):
        packed = path.stat().st_size
        if size > max(MAX_BYTES_OF_SMALL_FILES, MAX_RATIO * packed):
            raise LeanDiTError(
                f"{path}: the header states {size} bytes in a gzip file of {packed}, as in a decompression bomb; "
                "give another file, or unpack it"
            )
    elif path.stat().st_size < size:
        raise _wrong_length(path, shape, size, f"only {path.stat().st_size - file.tell()}", contents)
    # Read one extra byte to detect a file that is too long. No more than that is ever unpacked.
    payload = file.read(size + 1)
    if len(payload) != size:
        found = f"only {len(payload)}" if len(payload) < size else "more"
        raise _wrong_length(path, shape, size, found, contents)
    return np.frombuffer(payload, np.uint8).reshape(shape)


def _wrong_length(path: Path, shape: tuple[int, ...], size: int, found: str, contents: str) -> LeanDiTError:
    return LeanDiTError(
        f"{path}: the header states {' x '.join(map(str, shape))} = {size} bytes of {contents}, "
        f"but the file contains {found}; download it again"
    )
