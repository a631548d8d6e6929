"""Picture files to uint8 RGB, and uint8 RGB to the size that a model is trained on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from leandit.data.colours import to_srgb
from leandit.data.paths import check_plain_file
from leandit.errors import LeanDiTError
from leandit.grid import Grid

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"})
# Pillow's own limit against decompression bombs; above twice this size it refuses whatever it is told.
PILLOW_MAX_PIXELS = 89_478_485


def read_picture(path: Path, max_pixels: int = PILLOW_MAX_PIXELS) -> np.ndarray:
    """Return the picture in a file as `decode_picture` does; a file that is missing is a LeanDiTError too."""
    check_plain_file(path)
    try:
        with path.open("rb") as file:
            return decode_picture(file, str(path), max_pixels)
    except FileNotFoundError:
        raise LeanDiTError(f"{path}: no such picture; restore it, or remove it from the data set") from None
    except OSError as error:
        raise LeanDiTError(f"{path}: cannot be read: {error}") from None


def decode_picture(file: BinaryIO, name: str, max_pixels: int = PILLOW_MAX_PIXELS) -> np.ndarray:
    """Return the picture (its first frame) as uint8 RGB [height, width, 3], upright by its EXIF orientation.

    Transparency is composited on white; 16-bit grey is scaled to 8 bits; CMYK and palettes become RGB; the colours of
    an embedded ICC profile become sRGB. A file that is truncated, of another format or larger than `max_pixels` is a
    LeanDiTError that gives `name`.
    """
    try:
        with Image.open(file, formats=FORMATS) as picture:
            _check_size(name, picture, max_pixels)
            picture.load()
            return np.asarray(_to_rgb(name, ImageOps.exif_transpose(picture)))
    except LeanDiTError:
        raise
    except Image.DecompressionBombError:
        raise LeanDiTError(
            f"{name}: far too many pixels, as in a decompression bomb; shrink or remove the picture"
        ) from None
    except Image.UnidentifiedImageError:
        raise LeanDiTError(
            f"{name}: {_what_instead(file)} ({', '.join(FORMATS)} are read); replace or remove the file"
        ) from None
    # On damaged bytes Pillow's decoders raise a dozen kinds of error, struct.error and IndexError too.
    except Exception as error:
        raise LeanDiTError(f"{name}: damaged or truncated picture ({error}); replace or remove the file") from None


def fit_picture(image: np.ndarray, size: Grid) -> np.ndarray:
    """Return the centre of uint8 [height, width, 3], resized to [size.height, size.width, 3] with antialiasing.

    The centre is the largest part that has the proportions of `size`, to the nearest pixel: for a square the centre
    square.
    """
    height, width = image.shape[:2]
    if (height, width) == (size.height, size.width):
        return image
    kept_height = min(height, max(1, round(width * size.height / size.width)))
    kept_width = min(width, max(1, round(height * size.width / size.height)))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    kept = np.ascontiguousarray(image[top : top + kept_height, left : left + kept_width])
    if (kept_height, kept_width) == (size.height, size.width):
        return kept
    return np.asarray(Image.fromarray(kept).resize((size.width, size.height), Image.Resampling.LANCZOS))


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Return uint8 [height, width, channels]: RGB as it is, or its ITU-R 601 luma for one channel."""
    if channels == 3:
        return image
    return np.asarray(Image.fromarray(image).convert("L"))[..., None]


def _check_size(name: str, picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise LeanDiTError(
            f"{name}: {width} x {height} pixels are more than max_pixels={max_pixels}; "
            f"shrink or remove the picture, or raise max_pixels (at most {PILLOW_MAX_PIXELS})"
        )


def _to_rgb(name: str, picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        return _from_deep_grey(name, picture)
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        layered = picture.convert("RGBA")
        colours = to_srgb(layered.convert("RGB"), picture.info.get("icc_profile"))
        colours.putalpha(layered.getchannel("A"))
        return Image.alpha_composite(white, colours).convert("RGB")
    plain = picture if picture.mode in ("L", "RGB", "CMYK") else picture.convert("RGB")
    return to_srgb(plain, picture.info.get("icc_profile")).convert("RGB")


def _from_deep_grey(name: str, picture: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255, and a transparent value to white. Pillow's own conversion would clip at 255."""
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise LeanDiTError(f"{name}: 32-bit pictures are not read; save it with 8 or 16 bits per channel")
    grey = np.rint(values / 257.0).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey = np.where(values == transparent, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def _what_instead(file: BinaryIO) -> str:
    return "empty file" if file.seek(0, os.SEEK_END) == 0 else "not a picture of a known format"
