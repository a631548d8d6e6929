"""What every data source offers: examples by number, so that a loader can start anywhere without replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Example:
    """One picture: uint8 RGB [height, width, 3], with its class number, its caption, or neither."""

    image: np.ndarray
    label: int | None
    text: str | None
    key: str
    """Name of the picture for messages, such as its path inside the folder."""


class Source(Protocol):
    """A random-access set of examples; reading must be safe from several threads at once."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class number; empty when the pictures have no labels."""

    def __len__(self) -> int:
        """Return the number of pictures, at least 1."""

    def __getitem__(self, index: int) -> Example:
        """Return picture `index`, 0 <= index < len; a bad one is a LeanDiTError that names the file."""
