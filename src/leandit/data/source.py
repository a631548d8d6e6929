"""What every data source offers: examples by number, so that a loader can start anywhere without replay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from leandit.data.captions import Caption


@dataclass(frozen=True)
class Example:
    """One picture, with its class number, its captions, or neither.

    `image` is uint8 RGB [height, width, 3], or an autoencoder's latent, float32 [channels, height, width].
    """

    image: np.ndarray
    label: int | None
    captions: tuple[Caption, ...]
    """One is drawn whenever the picture is shown; empty when there are none."""
    key: str
    """Name of the picture for messages, such as its path inside the folder."""

    @property
    def is_latent(self) -> bool:
        """Whether the numbers are used as they are, not pixels to be cropped, resized and scaled."""
        return self.image.dtype == np.float32

    @property
    def text(self) -> str | None:
        """Return the first caption, or None."""
        return self.captions[0].text if self.captions else None


class Source(Protocol):
    """A random-access set of examples; reading must be safe from several threads at once."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class number; empty when the pictures have no labels."""

    @property
    def fingerprint(self) -> str:
        """Tells whether another source has the same pictures, in the same order and with the same labels.

        Files count by their names, so that a damaged picture may be mended in the middle of a run.
        """

    def __len__(self) -> int:
        """Return the number of pictures, at least 1."""

    def __getitem__(self, index: int) -> Example:
        """Return picture `index`, 0 <= index < len; a bad one is a LeanDiTError that names the file."""


def fingerprint(items: Iterable[object]) -> str:
    """Return a hash over items that have a JSON form, in their order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item).encode() + b"\n")
    return digest.hexdigest()
