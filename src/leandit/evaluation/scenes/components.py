"""Connected regions of a mask, for many pictures at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int


def label_components(mask: Bool[np.ndarray, "pictures height width"]) -> Int[np.ndarray, "pictures height width"]:
    """Return 0 outside of the mask, and inside a number above 0 that pixels share which are connected by their sides.

    Each pixel starts with a number of its own; rows and columns take turns in handing the highest one to all pixels
    of a run, until nothing changes. Regions of different pictures have different numbers.
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
    """Give every pixel the highest label of its unbroken run along an axis."""
    onwards = _running_max(labels, mask, axis)
    backwards = _running_max(np.flip(onwards, axis), np.flip(mask, axis), axis)
    return np.ascontiguousarray(np.flip(backwards, axis))


def _running_max(
    labels: Int[np.ndarray, "pictures height width"], mask: Bool[np.ndarray, "pictures height width"], axis: int
) -> Int[np.ndarray, "pictures height width"]:
    # A later run outweighs all before it, so that the maximum starts anew at each break.
    weight = np.cumsum(~mask, axis=axis) * (mask.size + 1)
    return np.where(mask, np.maximum.accumulate(weight + labels, axis=axis) - weight, 0)
