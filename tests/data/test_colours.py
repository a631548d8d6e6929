"""Colours as a viewer shows them: ICC profiles, transparency of 16-bit grey."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from leandit.data.pictures import decode_picture

# sRGB's primaries in the profile connection space (D50).
RED, GREEN, BLUE = (0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)


def profile(red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...], gamma: float) -> bytes:
    """An ICC profile of version 2, written by hand after ICC.1:2001-04: three primaries and one gamma."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 79
    tags = {
        **{b"desc": name, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))},
        **{b"rXYZ": xyz(red), b"gXYZ": xyz(green), b"bXYZ": xyz(blue)},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += tag + struct.pack(">II", start + len(data), len(content))
        data += content
    body = struct.pack(">I", len(tags)) + table + data
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    head += struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + body


def decoded(picture: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    file.seek(0)
    return decode_picture(file, "a")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_profile_is_applied(mode: str) -> None:
    swapped = profile(GREEN, RED, BLUE, 2.2)
    red = Image.new("RGB", (2, 2), (255, 0, 0)).convert(mode)
    found = decoded(red, icc_profile=swapped)
    assert np.abs(found.astype(int) - [0, 255, 0]).max() <= 3


def test_a_linear_profile_lightens_as_the_srgb_curve_says() -> None:
    linear = profile(RED, GREEN, BLUE, 1.0)
    found = decoded(Image.new("RGB", (2, 2), (128, 128, 128)), icc_profile=linear)
    share = 128 / 255
    expected = round(255 * (1.055 * share ** (1 / 2.4) - 0.055))  # IEC 61966-2-1
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_pictures_in_srgb_and_with_unfit_profiles_stay_as_they_are() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for other in (srgb, b"nonsense", srgb[:200]):
        assert (decoded(Image.fromarray(noise), icc_profile=other) == noise).all()
    grey = Image.fromarray(noise[..., 0])
    assert (decoded(grey, icc_profile=profile(GREEN, RED, BLUE, 2.2)) == noise[..., :1]).all()


def test_transparency_keeps_its_place_under_a_profile() -> None:
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (255, 0, 0, 0))
    found = decoded(picture, icc_profile=profile(GREEN, RED, BLUE, 2.2))
    assert np.abs(found[0].astype(int) - [[0, 255, 0], [255, 255, 255]]).max() <= 3


def png16(values: np.ndarray, transparent: int | None) -> io.BytesIO:
    """A PNG of 16-bit grey, written by hand; `transparent` becomes its tRNS chunk."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0))]
    parts += [] if transparent is None else [chunk(b"tRNS", struct.pack(">H", transparent))]
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("transparent", [None, 0, 1000, 65535])
def test_transparent_16_bit_grey_becomes_white(transparent: int | None) -> None:
    values = np.array([[0, 257, 1000], [25700, 65534, 65535]])
    expected = np.where(values == transparent, 255, np.rint(values / 257)).astype(np.uint8)
    found = decode_picture(png16(values, transparent), "a")
    assert (found == expected[..., None]).all()
