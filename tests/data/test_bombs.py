"""Small files that unpack to gigabytes, and files that never end: refused by name, in little time and memory."""

from __future__ import annotations

import gzip
import io
import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leandit.data import build_source, idx, parquet
from leandit.data.class_folder import ClassFolderConfig
from leandit.data.idx import IdxConfig
from leandit.data.metadata_folder import MetadataFolderConfig
from leandit.data.parquet import ParquetConfig
from leandit.errors import LeanDiTError

pyarrow = pytest.importorskip("pyarrow")


def png(side: int = 64) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(file, format="PNG")
    return file.getvalue()


def write_parquet(path: Path, pictures: list[bytes], **options: object) -> ParquetConfig:
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"image": pictures}), path, **options)
    return ParquetConfig(paths=(str(path),), text_column=None, label_column=None)


def test_a_parquet_file_that_repeats_a_picture_without_end_is_refused(tmp_path: Path) -> None:
    """One picture of 32 KB in a dictionary stands for 100,000 rows, which are 3.2 GB."""
    picture = png(105)
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(100_000, np.int32)), [picture])
    path = tmp_path / "bomb.parquet"
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"image": column}), path, store_schema=False, use_dictionary=True, row_group_size=200_000)
    assert path.stat().st_size < 100_000
    assert 100_000 * len(picture) > 3.2e9
    source = build_source(ParquetConfig(paths=(str(path),), text_column=None, label_column=None))
    started, before = time.process_time(), pyarrow.total_allocated_bytes()
    with pytest.raises(LeanDiTError, match=r"bomb\.parquet: row group 0 unpacks to more than 268435456 bytes"):
        source[0]
    assert time.process_time() - started < 5
    assert pyarrow.default_memory_pool().max_memory() - before < 1.5e9


def test_a_parquet_file_of_repeated_pictures_within_bounds_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MAX_BYTES_OF_SMALL_GROUPS", 1000)
    few = build_source(write_parquet(tmp_path / "few.parquet", [png()] * 15))
    assert few[14].image.shape == (64, 64, 3)
    many = build_source(write_parquet(tmp_path / "many.parquet", [png()] * 30))
    with pytest.raises(LeanDiTError, match=r"many\.parquet: row group 0 unpacks"):
        many[0]


@pytest.mark.parametrize("codec", ["zstd", "gzip", "snappy"])
def test_a_page_that_unpacks_to_gigabytes_is_refused_by_what_it_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    monkeypatch.setattr(parquet, "MAX_BYTES_OF_SMALL_GROUPS", 1 << 20)
    zeros = [bytes([i]) + bytes(1 << 16) for i in range(64)]
    source = build_source(write_parquet(tmp_path / "page.parquet", zeros, compression=codec, use_dictionary=False))
    with pytest.raises(LeanDiTError, match=r"page\.parquet: row group 0 unpacks to more than"):
        source[0]


def test_billions_of_rows_in_a_small_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_ROWS_OF_SMALL_FILES", 1000)
    config = write_parquet(tmp_path / "rows.parquet", [b""] * 100_000)
    with pytest.raises(LeanDiTError, match=r"rows\.parquet: states 100000 rows in \d+ bytes"):
        build_source(config)


def zipped(path: Path, header: bytes, zeros: int) -> None:
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(header)
        for _ in range(zeros >> 20):
            file.write(bytes(1 << 20))


@pytest.mark.parametrize("what", ["images", "labels"])
def test_a_gzipped_idx_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, what: str) -> None:
    count = 200 << 20
    zipped(
        tmp_path / "images.gz", b"\x00\x00\x08\x03" + struct.pack(">III", count, 1, 1), count if what == "images" else 0
    )
    if what == "labels":
        with gzip.open(tmp_path / "images.gz", "wb") as file:
            file.write(b"\x00\x00\x08\x03" + struct.pack(">III", 4, 1, 1) + bytes(4))
        zipped(tmp_path / "labels.gz", b"\x00\x00\x08\x01" + struct.pack(">I", count), count)
    config = IdxConfig(
        images=str(tmp_path / "images.gz"), labels=str(tmp_path / "labels.gz") if what == "labels" else None
    )
    tracemalloc.start()
    with pytest.raises(LeanDiTError, match=rf"{what}\.gz: the header states {count} bytes in a gzip file of \d+"):
        build_source(config)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_a_plain_idx_file_that_states_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(b"\x00\x00\x08\x03" + struct.pack(">III", idx.MAX_BYTES - 1, 1, 1) + bytes(100))
    with pytest.raises(LeanDiTError, match=r"images: the header states .* but the file contains only 100"):
        build_source(IdxConfig(images=str(tmp_path / "images")))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [pipe, device])
@pytest.mark.parametrize("kind", ["metadata_folder", "idx", "idx labels", "parquet", "class_folder"])
def test_what_never_ends_is_refused(tmp_path: Path, make: Callable[[Path], None], kind: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    name = {"metadata_folder": "metadata.jsonl", "class_folder": "b.png"}.get(kind, "endless")
    make(tmp_path / name)
    configs = {
        "metadata_folder": lambda: MetadataFolderConfig(path=str(tmp_path)),
        "idx": lambda: IdxConfig(images=str(tmp_path / name)),
        "idx labels": lambda: IdxConfig(images=str(tmp_path / "images"), labels=str(tmp_path / name)),
        "parquet": lambda: ParquetConfig(paths=(str(tmp_path / name),)),
        "class_folder": lambda: ClassFolderConfig(path=str(tmp_path)),
    }
    (tmp_path / "images").write_bytes(b"\x00\x00\x08\x03" + struct.pack(">III", 1, 1, 1) + b"\x00")
    with pytest.raises(LeanDiTError, match=name):
        build_source(configs[kind]())


def test_a_picture_that_becomes_a_pipe_during_a_run_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    source = build_source(ClassFolderConfig(path=str(tmp_path)))
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(LeanDiTError, match=r"a\.png: a pipe or a device"):
        source[0]
