"""The things in a picture, read from its pixels alone: kind, colour and place of each.

Every region that differs from the background is compared, at a common area and around its centroid, with each kind
drawn in several sizes. A shape explains a region by its mask times the best colour, an emoji by its own colours;
the kind that explains the largest share of the region's energy wins:

    explained = 1 - |region - drawing|^2 / |region|^2

Below `EXPLAINED` the region is no known thing. A shape's colour is the nearest of the palette in Oklab, pure or
with up to 30 % of the background in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from leandit.data.scenes.render import render
from leandit.data.scenes.scene import Scene, Thing
from leandit.data.scenes.vocabulary import COLOURS, EMOJI, KINDS, SHAPES
from leandit.errors import LeanDiTError
from leandit.evaluation.benchmarks.scenes.regions import Regions, find_regions

# It is raised if the same picture may be read differently.
READER_VERSION = 1
# The smallest side in pixels at which kinds can be distinguished.
SMALLEST = 32
# Least share of a region's energy that a kind must explain.
EXPLAINED = 0.85
# Largest distance in Oklab from a colour of the palette; black and white are 0.8 apart, red and orange 0.2.
_COLOUR_REACH = 0.11
# Blur mixes a thin shape's colour with the background: the shares of the colour that are tried.
_PURITY = (1.0, 0.85, 0.7)
# Sizes in pixels of the drawings that regions are compared with: smaller things have softer edges.
_DRAWN = (7, 10, 16, 28)
_PIXELS_AT_ONCE = 2**18


@dataclass(frozen=True)
class Found:
    """A region of a picture; lengths are fractions of the picture's side, y grows downwards."""

    kind: str | None
    """None if it looks like no known thing."""
    colour: str | None
    """None for emoji, and for colours far from the palette's."""
    x: float
    y: float
    """Centre of its box."""
    width: float
    height: float


def read_pictures(pictures: UInt8[Tensor, "pictures size size 3"]) -> list[tuple[Found, ...]]:
    """Return the things in each picture; raise LeanDiTError for pictures below 32 x 32 or not square RGB."""
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
        raise LeanDiTError(
            f"pictures of shape {tuple(pictures.shape)} and type {pictures.dtype} cannot be read; "
            "give uint8 [pictures, size, size, 3]"
        )
    size = pictures.shape[1]
    if size < SMALLEST or pictures.shape[2] != size:
        raise LeanDiTError(
            f"pictures of {size} x {pictures.shape[2]} pixels cannot be read; give squares of at least {SMALLEST} x "
            f"{SMALLEST}; shapes in smaller ones cannot be read"
        )
    return [found for part in pictures.split(max(1, _PIXELS_AT_ONCE // size**2)) for found in _read(part)]


def _read(pictures: UInt8[Tensor, "pictures size size 3"]) -> list[tuple[Found, ...]]:
    regions = find_regions(pictures)
    found: list[list[Found]] = [[] for _ in pictures]
    for picture, thing in zip(regions.picture.tolist(), _name(regions), strict=True):
        found[picture].append(thing)
    return [tuple(things) for things in found]


def _name(regions: Regions) -> list[Found]:
    drawings = _drawings()
    shapes, fitted = _fit_shapes(regions.crop, drawings.shapes)
    background = regions.background / 255
    emoji = _fit_emoji(regions.crop / background[..., None, None], drawings.emoji)
    explained = torch.cat([shapes, emoji], dim=1)
    best, place = explained.max(dim=1)
    kind = torch.where(best >= EXPLAINED, place // len(_DRAWN), -1)
    # The colour that fits the winning drawing; emoji have none.
    difference = fitted[torch.arange(len(place)), place.clamp(max=fitted.shape[1] - 1)]
    colour = _nearest_colour(background + difference, background)
    rows = zip(kind.tolist(), colour.tolist(), regions.box.tolist(), strict=True)
    return [_found(kind, colour, box) for kind, colour, box in rows]


def _found(kind: int, colour: int, box: list[float]) -> Found:
    left, top, right, bottom = box
    name = KINDS[kind] if kind >= 0 else None
    named_colour = tuple(COLOURS)[colour] if name in SHAPES and colour >= 0 else None
    return Found(name, named_colour, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


@dataclass(frozen=True)
class _Drawings:
    """The kinds in the form of crops: each in all sizes, one kind after the other."""

    shapes: Float[Tensor, "shapes crop crop"]
    """Coverage."""
    emoji: Float[Tensor, "emoji 3 crop crop"]
    """Difference from white."""


@lru_cache(maxsize=1)
def _drawings() -> _Drawings:
    black = "black"
    things = [Thing(kind, black, 0.5, 0.5, size / 32) for kind in SHAPES for size in _DRAWN]
    things += [Thing(kind, None, 0.5, 0.5, size / 32) for kind in EMOJI for size in _DRAWN]
    regions = find_regions(torch.from_numpy(np.stack([render(Scene((thing,)), 32) for thing in things])))
    assert len(regions.crop) == len(things), "a drawing falls apart or is too small"
    count = len(SHAPES) * len(_DRAWN)
    return _Drawings(regions.crop[:count].mean(1) / (COLOURS[black][0] / 255 - 1), regions.crop[count:])


def _fit_shapes(
    crop: Float[Tensor, "regions 3 crop crop"], masks: Float[Tensor, "shapes crop crop"]
) -> tuple[Float[Tensor, "regions shapes"], Float[Tensor, "regions shapes 3"]]:
    """Return how much each mask explains with its best colour, and this colour less the background (least squares)."""
    overlap = torch.einsum("rcyx,syx->rsc", crop, masks)
    energy = masks.square().sum((1, 2))
    total = crop.square().sum((1, 2, 3))
    return overlap.square().sum(2) / (energy * total[:, None]), overlap / energy[:, None]


def _fit_emoji(
    crop: Float[Tensor, "regions 3 crop crop"], drawings: Float[Tensor, "emoji 3 crop crop"]
) -> Float[Tensor, "regions emoji"]:
    """Return how much each drawing explains as it is."""
    total = crop.square().sum((1, 2, 3))[:, None]
    overlap = torch.einsum("rcyx,ecyx->re", crop, drawings)
    return (2 * overlap - drawings.square().sum((1, 2, 3))) / total


def _nearest_colour(
    colours: Float[Tensor, "regions 3"], background: Float[Tensor, "regions 3"]
) -> Int[Tensor, " regions"]:
    """Return the number of the palette's nearest colour, pure or somewhat paled, or -1 if it is too far."""
    palette = torch.tensor(list(COLOURS.values())) / 255
    purity = torch.tensor(_PURITY)[:, None, None, None]
    paled = background[:, None] + purity * (palette - background[:, None])
    distance = (_oklab(paled) - _oklab(colours)[:, None]).norm(dim=-1).amin(dim=0)
    nearest, place = distance.min(dim=1)
    return torch.where(nearest <= _COLOUR_REACH, place, -1)


def _oklab(rgb: Float[Tensor, "*colours 3"]) -> Float[Tensor, "*colours 3"]:
    """Convert sRGB in [0, 1] to Oklab, in which distances are about as large as they look.

    Reference: B. Ottosson, "A perceptual color space for image processing", 2020.
    """
    rgb = rgb.clamp(0, 1)
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_cones = torch.tensor(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = torch.tensor(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return (linear @ to_cones.T) ** (1 / 3) @ to_lab.T
