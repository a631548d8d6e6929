"""From a scene to pixels, with smooth edges, at any size."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from leandit.data.emoji_pack import EmojiConfig, EmojiSource
from leandit.data.scenes.scene import Scene, Thing
from leandit.data.scenes.vocabulary import COLOURS, EMOJI

# Samples per pixel and axis. Each sample is smoothed over its own width.
_SAMPLES = 2
# White border around an emoji of 32 pixels, so that a patch can extend beyond the emoji.
_PAD = 32


def render(scene: Scene, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Return the picture of a scene: size x size pixels of RGB."""
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = scene.background
    for thing in scene.things:
        x, y = _span(thing.x, thing.size, size), _span(thing.y, thing.size, size)
        part = canvas[slice(*y), slice(*x)]
        if thing.colour is None:
            part *= _emoji_patch(thing, size, x, y)
        else:
            part += _shape_patch(thing, size, x, y)[..., None] * (np.array(COLOURS[thing.colour], np.float32) - part)
    return (canvas + 0.5).astype(np.uint8)


def _span(centre: float, extent: float, size: int) -> tuple[int, int]:
    """Return the first pixel that a thing can touch along an axis, and the pixel after the last one."""
    low, high = (centre - extent / 2) * size, (centre + extent / 2) * size
    return max(math.floor(low) - 1, 0), min(math.ceil(high) + 1, size)


def _shape_patch(thing: Thing, size: int, x: tuple[int, int], y: tuple[int, int]) -> Float[np.ndarray, "height width"]:
    """Return the share of each pixel that the shape covers."""
    radius = thing.size * size / 2
    u = (_samples(*x) - thing.x * size) / radius
    v = (_samples(*y) - thing.y * size) / radius
    inside = np.clip(0.5 - _distance(thing.kind, u[None], v[:, None]) * (radius * _SAMPLES), 0, 1)
    return inside.reshape(y[1] - y[0], _SAMPLES, x[1] - x[0], _SAMPLES).mean((1, 3), dtype=np.float32)


def _samples(first: int, end: int) -> Float[np.ndarray, " samples"]:
    return first + (np.arange((end - first) * _SAMPLES, dtype=np.float32) + 0.5) / _SAMPLES


def _distance(
    kind: str, x: Float[np.ndarray, "1 columns"], y: Float[np.ndarray, "rows 1"]
) -> Float[np.ndarray, "rows columns"]:
    """Return the signed distance to the edge of a shape that fills [-1, 1]^2. It is negative inside; y grows downwards.

    It is exact near edges, which is enough for smoothing, and too small outside of corners.
    """
    match kind:
        case "circle":
            return np.hypot(x, y) - 1
        case "ring":
            return np.abs(np.hypot(x, y) - 0.75) - 0.25
        case "square":
            return np.maximum(np.abs(x), np.abs(y)) - 0.88
        case "cross":
            x, y = np.abs(x), np.abs(y)
            return np.maximum(np.minimum(x, y) - 0.33, np.maximum(x, y) - 0.98)
        case "triangle":
            # Equilateral, base below: corners (0, -0.866), (-1, 0.866), (1, 0.866).
            return np.maximum((2 * 0.866 * np.abs(x) - y - 0.866) / 2, y - 0.866)
    return _star_distance(x, y - np.float32(0.1))


def _star_distance(
    x: Float[np.ndarray, "1 columns"], y: Float[np.ndarray, "rows 1"], outer: float = 1.05, inner: float = 0.47
) -> Float[np.ndarray, "rows columns"]:
    """Return the distance to a star with five tips. One tip points upwards.

    By symmetry half a tip is enough: the angle to the nearest tip, and the line from the tip to the notch.
    """
    radius, angle = np.hypot(x, y), np.arctan2(x, -y)
    fifth = 2 * math.pi / 5
    from_tip = np.abs((angle + fifth / 2) % fifth - fifth / 2)
    notch = (inner * math.cos(fifth / 2), inner * math.sin(fifth / 2))
    length = math.hypot(outer - notch[0], notch[1])
    normal = (notch[1] / length, (outer - notch[0]) / length)
    return normal[0] * (radius * np.cos(from_tip) - outer) + normal[1] * radius * np.sin(from_tip)


def _emoji_patch(
    thing: Thing, size: int, x: tuple[int, int], y: tuple[int, int]
) -> Float[np.ndarray, "height width channels"]:
    """Return an emoji on white as factors of the background: a factor of 1 is white and keeps the background."""
    picture = _emoji()[thing.kind]
    scale = (picture.width - 2 * _PAD) / (thing.size * size)
    left, top = (thing.x - thing.size / 2) * size, (thing.y - thing.size / 2) * size
    start = (_PAD + scale * (x[0] - left), _PAD + scale * (y[0] - top))
    end = (_PAD + scale * (x[1] - left), _PAD + scale * (y[1] - top))
    patch = picture.resize((x[1] - x[0], y[1] - y[0]), Image.Resampling.BILINEAR, box=(*start, *end))
    return np.asarray(patch, np.float32) / 255


@lru_cache(maxsize=1)
def _emoji() -> dict[str, Image.Image]:
    """Return the emoji by their names in captions."""
    source = EmojiSource(EmojiConfig(styles=("noto",), split="all"))
    by_key = {example.key: example.image for example in (source[index] for index in range(len(source)))}
    frame = ((_PAD, _PAD), (_PAD, _PAD), (0, 0))
    padded = {word: np.pad(by_key[f"{name} (noto)"], frame, constant_values=255) for word, name in EMOJI.items()}
    return {word: Image.fromarray(picture) for word, picture in padded.items()}
