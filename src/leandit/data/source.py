"""The interface of a data source: examples by number, so that a resumed loader can start at any position."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import numpy as np

from leandit.config import Config, Registry
from leandit.data.captions import Caption


@dataclass(frozen=True)
class Example:
    """One picture, optionally with a class number and captions.

    `image` is uint8 RGB [height, width, 3], or an autoencoder's latent, float32 [channels, height, width].
    """

    image: np.ndarray
    label: int | None
    captions: tuple[Caption, ...]
    """Training draws one of them each time it shows the picture. Empty if there are none."""
    key: str
    """Name of the picture in messages, such as its path inside the folder."""

    @property
    def is_latent(self) -> bool:
        """Whether `image` is a latent. Latents are used unchanged; pictures are cropped, resized and scaled."""
        return self.image.dtype == np.float32

    @property
    def text(self) -> str | None:
        """Return the first caption, or None."""
        return self.captions[0].text if self.captions else None


@runtime_checkable
class Source(Protocol):
    """A random-access set of examples. Several threads may read at the same time."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class number. Empty if the pictures have no labels."""

    @property
    def fingerprint(self) -> str:
        """A hash that is equal for sources with the same pictures, in the same order, with the same labels.

        It contains the names of files and not their contents, so a damaged picture can be repaired during a run.
        """

    def __len__(self) -> int:
        """Return the number of pictures, at least 1."""

    def __getitem__(self, index: int) -> Example:
        """Return picture `index`, 0 <= index < len. Raises LeanDiTError, which names the file, for a bad picture."""


class SourceConfig(Config):
    """A kind of data source. One from outside the package has a method `build` that opens it."""

    type: str
    """The tag by which configurations name the source."""

    def build(self) -> Source:
        """Open the source. It checks paths, metadata, class names and headers now, and pixels when they are read.

        Messages name a setting as `data.source.path`, whatever the place of the source.
        """
        raise NotImplementedError


SOURCES = Registry("data source", SourceConfig)
"""All sources by their `type`. Other files, also outside the package, can register more."""

AnySource = Annotated[SourceConfig, SOURCES]


def fingerprint(items: Iterable[object]) -> str:
    """Return a hash of items that can be written as JSON, in their order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item).encode() + b"\n")
    return digest.hexdigest()
