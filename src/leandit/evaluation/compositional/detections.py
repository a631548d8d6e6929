"""What a detector says of a picture: objects with class, score and box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detected:
    """One object: its class, how sure the detector is, and where it is."""

    name: str
    score: float
    # Left, top, right, bottom in pixels.
    box: Box
    # Its pixels, bool [height, width], from a detector that segments.
    mask: np.ndarray | None = None


@runtime_checkable
class Detector(Protocol):
    """Finds objects in a picture."""

    @property
    def classes(self) -> frozenset[str]:
        """Return the classes that it can find."""

    def __call__(self, picture: UInt8[Tensor, "height width channels"]) -> list[Detected]:
        """Return the objects in a picture, 0..255, in any order and down to any score."""

    def about(self) -> dict[str, Any]:
        """Return what its answers depend on, as JSON."""


@runtime_checkable
class Colours(Protocol):
    """Says which of the benchmark's colours an object has."""

    def __call__(self, picture: UInt8[Tensor, "height width channels"], objects: list[Detected]) -> list[str]:
        """Return the colour of each object; all are of one class."""

    def about(self) -> dict[str, Any]:
        """Return what its answers depend on, as JSON."""


def confident(objects: list[Detected], threshold: float, most: int) -> Mapping[str, list[Detected]]:
    """Return class -> its objects above the threshold, the surest first, at most so many."""
    by_class: dict[str, list[Detected]] = {}
    for found in sorted(objects, key=lambda found: -found.score):
        if found.score > threshold:
            by_class.setdefault(found.name, []).append(found)
    return {name: found[:most] for name, found in by_class.items()}
