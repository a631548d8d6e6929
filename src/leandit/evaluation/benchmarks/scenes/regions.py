"""Regions that differ from a picture's background: their places, and each as a crop at a common scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F


def label_components(mask: Bool[np.ndarray, "pictures height width"]) -> Int[np.ndarray, "pictures height width"]:
    """Return 0 outside the mask and a number above 0 inside; pixels connected by their sides have the same number.

    Each pixel starts with its own number. In turn, rows and columns give the highest number of a run to all its pixels,
    until nothing changes. Regions of different pictures have different numbers.
    """
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        spread = _along(_along(labels, mask, 2), mask, 1)
        if np.array_equal(spread, labels):
            return labels
        labels = spread


def _along(
    labels: Int[np.ndarray, "pictures height width"], mask: Bool[np.ndarray, "pictures height width"], axis: int
) -> Int[np.ndarray, "pictures height width"]:
    """Return the labels with the highest one of every unbroken run along an axis on all its pixels."""
    onwards = _running_max(labels, mask, axis)
    backwards = _running_max(np.flip(onwards, axis), np.flip(mask, axis), axis)
    return np.ascontiguousarray(np.flip(backwards, axis))


def _running_max(
    labels: Int[np.ndarray, "pictures height width"], mask: Bool[np.ndarray, "pictures height width"], axis: int
) -> Int[np.ndarray, "pictures height width"]:
    # A later run outweighs all before it, so that the maximum starts anew at each break.
    weight = np.cumsum(~mask, axis=axis) * (mask.size + 1)
    return np.where(mask, np.maximum.accumulate(weight + labels, axis=axis) - weight, 0)


# Side of a crop in samples, and half its extent in square roots of the region's area: shapes and emoji fit in.
CROP = 24
EXTENT = 1.05
# Least distance in RGB of a pixel from the background: noise of 10 levels in each channel exceeds it in one pixel of
# ten million.
_STANDS_OUT = 60.0
# Smaller regions, as shares of the picture, are specks.
_SPECK = 0.01


@dataclass(frozen=True)
class Regions:
    """Regions of some pictures; lengths are fractions of the picture's side."""

    picture: Int[Tensor, " regions"]
    """The picture that it is in."""
    box: Float[Tensor, "regions 4"]
    """Left, top, right, bottom."""
    crop: Float[Tensor, "regions 3 crop crop"]
    """Difference from the background, in units of the whole range, around the centroid and at a common area."""
    background: Float[Tensor, "regions 3"]
    """0..255."""


@dataclass(frozen=True)
class _Pixels:
    """Pixels that belong to regions, one after the other."""

    region: Int[Tensor, " pixels"]
    y: Float[Tensor, " pixels"]
    x: Float[Tensor, " pixels"]
    difference: Float[Tensor, "pixels 3"]


def find_regions(pictures: UInt8[Tensor, "pictures size size 3"]) -> Regions:
    """Return all regions that are larger than a speck."""
    values = pictures.float()
    background = _background(values)
    difference = values - background[:, None, None]
    labels = torch.from_numpy(label_components((difference.norm(dim=-1) > _STANDS_OUT).numpy()))
    labels, picture = _number(labels)
    inner = _pixels(labels, difference)
    grown = torch.where(labels >= 0, labels, F.max_pool2d(labels[:, None].float(), 3, 1, 1)[:, 0].long())
    centre, area = _moments(_pixels(grown, difference), _direction(inner, len(picture)))
    crop = _crops(difference, grown, picture, centre, area)
    return Regions(picture, _boxes(inner, len(picture)) / pictures.shape[1], crop, background[picture])


def _background(values: Float[Tensor, "pictures size size 3"]) -> Float[Tensor, "pictures 3"]:
    """Return the median of the border, for each channel."""
    border = [values[:, 0], values[:, -1], values[:, 1:-1, 0], values[:, 1:-1, -1]]
    return torch.cat(border, dim=1).median(dim=1).values


def _number(
    labels: Int[Tensor, "pictures size size"],
) -> tuple[Int[Tensor, "pictures size size"], Int[Tensor, " regions"]]:
    """Return the regions numbered from 0, with -1 for background and specks, and the picture of each region."""
    pixels = labels.shape[1] * labels.shape[2]
    found, place, area = torch.unique(labels, return_inverse=True, return_counts=True)
    kept = (found > 0) & (area >= _SPECK * pixels)
    number = torch.where(kept, kept.cumsum(0) - 1, -1)
    # A label is the number of one of its pixels, counted from 1.
    return number[place], (found[kept] - 1) // pixels


def _pixels(labels: Int[Tensor, "pictures size size"], difference: Float[Tensor, "pictures size size 3"]) -> _Pixels:
    picture, y, x = torch.nonzero(labels >= 0, as_tuple=True)
    return _Pixels(labels[picture, y, x], y.float(), x.float(), difference[picture, y, x])


def _sums(pixels: _Pixels, values: Float[Tensor, "pixels n"], count: int) -> Float[Tensor, "regions n"]:
    return values.new_zeros(count, values.shape[1]).index_add_(0, pixels.region, values)


def _direction(pixels: _Pixels, count: int) -> Float[Tensor, "regions 3"]:
    """Return the difference from the background in the core of each region: a mean to which edges hardly contribute."""
    weight = pixels.difference.norm(dim=1, keepdim=True) ** 4
    return _sums(pixels, pixels.difference * weight, count) / _sums(pixels, weight, count)


def _moments(
    pixels: _Pixels, direction: Float[Tensor, "regions 3"]
) -> tuple[Float[Tensor, "regions 2"], Float[Tensor, " regions"]]:
    """Return centroid (x, y) and area, in pixels, to which pixels on edges contribute in part."""
    core = direction[pixels.region]
    share = ((pixels.difference * core).sum(1, keepdim=True) / core.square().sum(1, keepdim=True)).clamp(0, 1)
    places = torch.stack([pixels.x + 0.5, pixels.y + 0.5, torch.ones_like(pixels.x)], dim=1)
    sums = _sums(pixels, share * places, len(direction))
    return sums[:, :2] / sums[:, 2:], sums[:, 2]


def _boxes(pixels: _Pixels, count: int) -> Float[Tensor, "regions 4"]:
    edges = torch.stack([pixels.x, pixels.y], dim=1)
    index = pixels.region[:, None].expand(-1, 2)
    low = edges.new_zeros(count, 2).scatter_reduce_(0, index, edges, "amin", include_self=False)
    high = edges.new_zeros(count, 2).scatter_reduce_(0, index, edges + 1, "amax", include_self=False)
    return torch.cat([low, high], dim=1)


def _crops(
    difference: Float[Tensor, "pictures size size 3"],
    labels: Int[Tensor, "pictures size size"],
    picture: Int[Tensor, " regions"],
    centre: Float[Tensor, "regions 2"],
    area: Float[Tensor, " regions"],
) -> Float[Tensor, "regions 3 crop crop"]:
    """Return a sampled square around each region, without the pixels of other regions."""
    own = labels[picture] == torch.arange(len(picture))[:, None, None]
    alone = (difference[picture] * own[..., None]).permute(0, 3, 1, 2) / 255
    steps = (torch.arange(CROP) + 0.5) / CROP * 2 - 1
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    places = centre[:, None, None] + offsets * (EXTENT * area.sqrt())[:, None, None, None]
    # grid_sample has -1 and 1 at the outer edges of the picture.
    grid = places * (2 / labels.shape[1]) - 1
    return F.grid_sample(alone, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
