"""Reading pictures: every mode to RGB, every kind of bad file to an error that names it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leandit.data.pictures import fit_picture, read_picture, to_channels
from leandit.errors import LeanDiTError
from leandit.grid import Grid


def png_bytes(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG written chunk by chunk, independently of Pillow."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def saved(tmp_path: Path, picture: Image.Image, name: str = "x.png", **options: object) -> Path:
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def message(path: Path, **options: int) -> str:
    with pytest.raises(LeanDiTError) as caught:
        read_picture(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_rgb_png_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png_bytes(2, 1, 8, 2, bytes([0, 1, 2, 3, 250, 251, 252])))
    assert read_picture(path).tolist() == [[[1, 2, 3], [250, 251, 252]]]


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    values = (0, 257, 32768, 65535)
    path.write_bytes(png_bytes(4, 1, 16, 0, b"\0" + struct.pack(">4H", *values)))
    assert read_picture(path)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_alpha_is_composited_on_white(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png_bytes(3, 1, 8, 6, bytes([0, *(200, 0, 0, 0), *(200, 0, 0, 255), *(0, 0, 0, 51)])))
    assert read_picture(path).tolist() == [[[255, 255, 255], [200, 0, 0], [204, 204, 204]]]


def test_palette_with_a_transparent_entry_is_composited_on_white(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putdata([0, 1])
    path = saved(tmp_path, picture, transparency=0)
    assert read_picture(path).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "x.tiff")
    assert read_picture(path)[0, 0].tolist() == [255, 0, 0]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate a quarter clockwise to see it upright
    picture = Image.new("RGB", (2, 1))
    picture.putdata([(255, 0, 0), (0, 0, 255)])
    path = saved(tmp_path, picture, exif=exif)
    assert read_picture(path).tolist() == [[[255, 0, 0]], [[0, 0, 255]]]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_every_format_is_read_and_truncation_is_named(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    path = saved(tmp_path, Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)), f"x.{suffix}")
    assert read_picture(path).shape == (64, 64, 3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "replace or remove" in message(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_damaged_bytes_give_a_picture_or_our_error(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(7)
    path = saved(tmp_path, Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)), f"x.{suffix}")
    good = path.read_bytes()
    failures = 0
    for _ in range(150):
        damaged = np.frombuffer(good, np.uint8).copy()
        damaged[rng.integers(0, min(len(good), 200), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        try:
            image = read_picture(path, max_pixels=100_000)
            assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
        except LeanDiTError:
            failures += 1
    assert failures > 0


def test_bad_files_are_told_apart(tmp_path: Path) -> None:
    empty, text, pdf = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    empty.write_bytes(b"")
    text.write_text("no picture at all")
    Image.new("RGB", (4, 4)).save(pdf, format="PPM")
    assert "empty file" in message(empty)
    assert "not a picture of a known format" in message(text)
    assert "not a picture of a known format" in message(pdf)
    assert "no such picture" in message(tmp_path / "missing.png")


def test_max_pixels_is_checked_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    # The rows are missing: only a check of the header can raise this message.
    path.write_bytes(png_bytes(300, 200, 8, 2, b""))
    assert "300 x 200 pixels are more than max_pixels=59999" in message(path, max_pixels=59999)
    path.write_bytes(png_bytes(60_000, 60_000, 8, 2, b""))
    assert "decompression bomb" in message(path)


def test_float_tiff_is_refused(tmp_path: Path) -> None:
    assert "8 or 16 bits" in message(saved(tmp_path, Image.new("F", (4, 4), 0.5), "x.tiff"))


def test_a_square_is_the_centre_and_is_averaged() -> None:
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 90
    assert (fit_picture(image, Grid(4, 4)) == 90).all()
    checks = np.indices((64, 64)).sum(0) % 2 * 200
    small = fit_picture(np.repeat(checks[..., None], 3, 2).astype(np.uint8), Grid(8, 8))
    # Without antialiasing a checkerboard shrinks to 0 or 200; with it to its mean.
    assert np.abs(small.astype(int) - 100).max() <= 3


@pytest.mark.parametrize(
    ("height", "width", "top", "bottom", "left", "right"),
    [
        (24, 40, 0, 24, 0, 40),
        (48, 100, 0, 48, 10, 90),
        (64, 40, 20, 44, 0, 40),
        (24, 24, 5, 19, 0, 24),
        (3, 1, 1, 2, 0, 1),
    ],
)
def test_a_picture_keeps_the_centre_that_has_the_wanted_proportions(
    height: int, width: int, top: int, bottom: int, left: int, right: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    kept = Image.fromarray(image[top:bottom, left:right])
    expected = np.asarray(kept.resize((40, 24), Image.Resampling.LANCZOS))
    assert np.array_equal(fit_picture(image, Grid(24, 40)), expected)


def test_one_channel_is_601_luma() -> None:
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [77, 77, 77]]], np.uint8)
    assert to_channels(image, 1)[0, :, 0].tolist() == [76, 150, 29, 77]
    assert to_channels(image, 3) is image
