"""idx files written byte by byte."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from leandit.data import IdxConfig, build_source
from leandit.errors import LeanDiTError


def images(count: int = 3, side: int = 28) -> bytes:
    header = b"\x00\x00\x08\x03" + struct.pack(">III", count, side, side)
    return header + bytes((i * 7 + k) % 256 for i in range(count) for k in range(side * side))


def labels(*values: int) -> bytes:
    return b"\x00\x00\x08\x01" + struct.pack(">I", len(values)) + bytes(values)


def config(folder: Path, pictures: bytes, numbers: bytes | None = None, **options: object) -> IdxConfig:
    (folder / "images").write_bytes(pictures)
    if numbers is not None:
        (folder / "labels").write_bytes(numbers)
        options["labels"] = str(folder / "labels")
    return IdxConfig(images=str(folder / "images"), **options)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_pictures_and_labels_are_read(tmp_path: Path, pack: type) -> None:
    source = build_source(config(tmp_path, pack(images()), pack(labels(2, 0, 1)), class_names=("a", "b", "c")))
    assert len(source) == 3
    example = source[1]
    assert (example.label, example.text) == (0, "a")
    assert example.image.shape == (32, 32, 3)
    assert example.image[2, 2:5, 0].tolist() == [7, 8, 9]
    assert example.image[2 + 1, 2].tolist() == [7 + 28] * 3
    assert example.image.sum() == 3 * example.image[2:30, 2:30, 0].sum(dtype=int)


def test_no_labels_no_names_and_explicit_padding(tmp_path: Path) -> None:
    source = build_source(config(tmp_path, images(2, 5), pad=1))
    assert source.class_names == ()
    assert (source[0].label, source[0].text, source[0].image.shape) == (None, None, (7, 7, 3))
    assert build_source(config(tmp_path, images(2, 32)))[0].image.shape == (32, 32, 3)
    numbered = build_source(config(tmp_path, images(2, 5), labels(0, 3)))
    assert numbered.class_names == ("0", "1", "2", "3")
    assert numbered[1].text is None


@pytest.mark.parametrize(
    ("pictures", "numbers", "expected"),
    [
        (labels(1, 2), None, "starts with 00000801, not 00000803"),
        (images(), images(), "starts with 00000803, not 00000801"),
        (b"", None, "starts with nothing"),
        (images()[:9], None, "header is truncated"),
        (images()[:-1], None, "states 3 x 28 x 28 = 2352 bytes of pictures, but the file contains only 2351"),
        (images() + b"x", None, "the file contains more"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, None, "more than 4294967296"),
        (images(0), None, "contains no pictures"),
        (images(), labels(1, 2), "2 labels for the 3 pictures"),
        (gzip.compress(images())[:-20], None, "truncated or damaged gzip"),
        (gzip.compress(images())[:200] + bytes(50), None, "truncated or damaged gzip"),
    ],
)
def test_bad_files(tmp_path: Path, pictures: bytes, numbers: bytes | None, expected: str) -> None:
    with pytest.raises(LeanDiTError) as caught:
        build_source(config(tmp_path, pictures, numbers))
    assert expected in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_missing_file_and_missing_names(tmp_path: Path) -> None:
    with pytest.raises(LeanDiTError, match="no such file of pictures"):
        build_source(IdxConfig(images=str(tmp_path / "none")))
    with pytest.raises(LeanDiTError, match="label 2 has no name: class_names has only 2; give at least 3"):
        build_source(config(tmp_path, images(), labels(0, 1, 2), class_names=("a", "b")))


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(images(1, 4) + bytes(64 * 1024**2))
    with pytest.raises(LeanDiTError, match="the file contains more"):
        build_source(config(tmp_path, bomb))


def test_arrays_match_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (4, 6, 9), np.uint8)
    payload = b"\x00\x00\x08\x03" + struct.pack(">III", 4, 6, 9) + pixels.tobytes()
    source = build_source(config(tmp_path, payload))
    assert all((source[i].image == pixels[i][..., None]).all() for i in range(4))
