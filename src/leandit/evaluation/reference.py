"""Real pictures to compare with a run's own, in its size and channels, as its training data was prepared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import BaseModel
from torch import Tensor

from leandit.config import Config, validate
from leandit.data import AnySource, ClassFolderConfig, Example, MetadataFolderConfig, Source, build_source, summary
from leandit.data.metadata_file import NAMES as METADATA
from leandit.data.pictures import fit_picture, to_channels
from leandit.errors import LeanDiTError, NotFoundError
from leandit.grid import Grid
from leandit.sampling import LoadedRun, picture_shape


class FittedSource:
    """A source whose pictures are cropped and resized to a run's size and channels; otherwise the source itself.

    If `enlarges` is false, a picture smaller than the run's is a LeanDiTError: enlarging would blur it, and a run that
    draws sharp pictures would get a worse number.
    """

    def __init__(self, source: Source, size: Grid, channels: int, name: str, enlarges: bool) -> None:
        self._source = source
        self._enlarges = enlarges
        self.size = size
        self.channels = channels
        self.name = name
        self.class_names = source.class_names
        self.fingerprint = source.fingerprint

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        """Return picture `index`, uint8 [size.height, size.width, channels]."""
        example = self._source[index]
        if example.is_latent:
            raise LeanDiTError(f"--reference {self.name}: holds latents, not pictures; name a set of pictures")
        height, width = example.image.shape[:2]
        if (height < self.size.height or width < self.size.width) and not self._enlarges:
            raise LeanDiTError(
                f"--reference {self.name}: {example.key} is {width} x {height} pixels, smaller than the run's pictures "
                f"of {self.size.width} x {self.size.height}; give pictures of at least that size"
            )
        fitted = to_channels(fit_picture(example.image, self.size), self.channels)
        return dataclasses.replace(example, image=fitted)

    def summary(self, key: str) -> str:
        """Return what was read, and what was passed over."""
        return summary(self._source, key)

    def change(self) -> str | None:
        """Return what is done to the pictures, judged by the first one; None if nothing is done."""
        size, wanted = self._source[0].image.shape[:2], (self.size.height, self.size.width)
        done = [] if size == wanted else [f"cropped and resized to {self.size.width} x {self.size.height}"]
        done += ["turned grey"] if self.channels == 1 else []
        return " and ".join(done) or None


class _Reference(Config):
    """One field in which every kind of source is validated by its type."""

    reference: AnySource


def open_reference(run: LoadedRun, given: str | Path | SourceConfig | None) -> FittedSource:
    """Return the pictures that `given` names: a folder, a data source, or one as JSON such as {"type": "emoji"}.

    None is the run's training data, as the run saw them but never mirrored. A folder with metadata.jsonl or
    metadata.csv is read with its captions, any other by its class folders. Raises LeanDiTError if it is missing, empty
    or holds no pictures.
    """
    if run.codec.no_pictures is not None:
        raise LeanDiTError(
            f"{run.path}: the run learned latents, which cannot be measured as pictures. Draw them "
            "with `leandit sample` and decode them with the autoencoder that made the training data"
        )
    channels, size = picture_shape(run)
    if given is None:
        if run.config.data.holds_latents:
            raise LeanDiTError(
                f"{run.path}: its data are latents; name the pictures to measure against with --reference"
            )
        source = _training_data(run)
        return FittedSource(source, size, channels, "the run's training data", enlarges=True)
    config = _reference_config(str(given)) if isinstance(given, str | Path) else given
    name = str(given) if isinstance(given, str | Path) else given.model_dump_json()
    return FittedSource(_open(config, "--reference"), size, channels, name, enlarges=False)


def read_batches(source: Source, size: int = 64) -> Iterator[UInt8[Tensor, "samples height width channels"]]:
    """Yield all pictures of a fitted source, in their order."""
    for start in range(0, len(source), size):
        images = [source[n].image for n in range(start, min(start + size, len(source)))]
        yield torch.from_numpy(np.stack(images))


class PixelHash:
    """A SHA-256 over the pixels of pictures in their order; the files that held them do not matter."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, pictures: UInt8[Tensor, "samples height width channels"]) -> None:
        """Add pictures."""
        shape = json.dumps(list(pictures.shape[1:])).encode()
        for picture in pictures.numpy():
            self._digest.update(shape + picture.tobytes())

    def value(self) -> str:
        """Return the hash of all pictures so far."""
        return self._digest.hexdigest()


def _training_data(run: LoadedRun) -> Source:
    try:
        return _open(run.config.data.source)
    except NotFoundError as error:
        raise LeanDiTError(
            f"{run.path}: its training data, which it is measured against, is not here:\n{error}\n"
            "Put it back, or name other pictures with --reference"
        ) from None


def _open(config: SourceConfig, key: str = "data.source") -> Source:
    source = build_source(config, key)
    if not len(source):
        raise LeanDiTError(f"--reference: there is no picture in {config.type}")
    return source


def _reference_config(given: str) -> Any:
    if given.lstrip().startswith("{"):
        try:
            tree = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise LeanDiTError(f"--reference: not valid JSON: {error}") from None
        return validate(_Reference, {"reference": tree}, "--reference").reference
    folder = Path(given)
    if not folder.is_dir():
        kind = "a file, not a folder" if folder.exists() else "no such folder"
        raise LeanDiTError(
            f"--reference {given}: {kind} (now in {Path.cwd()}); give a folder of pictures, or a data source as JSON "
            'such as \'{"type": "emoji", "split": "held_out"}\''
        )
    described = any((folder / name).exists() for name in METADATA)
    kind_of: type[BaseModel] = MetadataFolderConfig if described else ClassFolderConfig
    return kind_of.model_validate({"path": given})
