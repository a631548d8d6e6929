"""The loader: an endless stream of batches whose every sample is a pure function of (seed, sample number).

Sample n = step * batch_size + j. Each epoch is a permutation of all pictures, and batches run on across the
ends of epochs, so the stream can be entered at any step at once and does not depend on the number of threads.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from leandit.config import Config, Fact
from leandit.data.captions import draw_caption
from leandit.data.latents import fit_latent
from leandit.data.pictures import fit_picture, to_channels
from leandit.data.source import AnySource, Example, Source
from leandit.grid import Grid, Size
from leandit.random import Stream, generator

_MOST_PIXELS = 4096


class DataConfig(Config):
    """The pictures and what is done to them before the model sees them."""

    source: AnySource
    """The pictures to train on."""
    validation: Annotated[AnySource | None, Fact.MAY_CHANGE] = None
    """Pictures for the validation loss; the run never trains on them. null computes no validation loss."""
    image_size: Size = 32
    """Height and width of the model's pictures in pixels, [24, 40] or "24x40", or one number for a square, at most
    4096. Pictures of other proportions are cropped to their centre, and all are resized with antialiasing. Latents must
    have this size already.
    """
    channels: int = Field(3, ge=1, le=4096)
    """Channels of the pictures: 3 is RGB, 1 is grey. For latents, the channels of their autoencoder."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability that a picture is mirrored left to right."""
    num_threads: Annotated[int, Fact.MAY_CHANGE] = Field(0, ge=0, le=64)
    """Threads that read ahead, one batch each. 0 reads in the caller's thread, which is best for pictures in memory
    (emoji, idx); use 2 to 16 for folders.
    """

    @model_validator(mode="after")
    def _check(self) -> Any:
        if max(self.size.height, self.size.width) > _MOST_PIXELS:
            raise ValueError(f"image_size = {self.size}: a picture has at most {_MOST_PIXELS} pixels a side")
        if self.validation is not None and (self.validation.type == "latents") != self.holds_latents:
            raise ValueError(
                "source and validation are latents and pictures; make both the same, or set data.validation=null"
            )
        if self.holds_latents and self.flip:
            raise ValueError(
                f"flip = {self.flip}: the mirror image of a latent is not the latent of the mirror image; "
                "set data.flip=0, and for mirrored pictures add their latents"
            )
        if not self.holds_latents and self.channels not in (1, 3):
            raise ValueError(f"channels = {self.channels}: pictures have 3 (RGB) or 1 (grey)")
        return self

    @property
    def size(self) -> Grid:
        """Height and width of a picture or a latent."""
        return Grid.of(self.image_size)

    @property
    def holds_latents(self) -> bool:
        """Whether the data are latents of an autoencoder, which are no pictures to look at."""
        return self.source.type == "latents"


@dataclass(frozen=True)
class Batch:
    """One batch of the stream."""

    images: Float[Tensor, "batch channels height width"]
    """In [-1, 1]: uint8 value v becomes v / 127.5 - 1. Latents are as they are stored."""
    labels: Int[Tensor, " batch"] | None
    texts: tuple[str, ...] | None
    """One caption per picture, drawn by weight among those that it has."""
    indices: tuple[int, ...]
    """The number n of each sample in the run, from 0: the counter for its noise."""
    keys: tuple[str, ...]
    """Name of each picture, for messages."""
    draws: Mapping[str, Tensor] = field(default_factory=dict)
    """What a task has drawn for the samples, such as noise; each tensor has one entry per sample."""


class Loader:
    """Batches of `source` in an order that is a function of (seed, epoch) alone.

    `draw` completes a batch as soon as it is read, in whatever thread reads it.
    """

    def __init__(
        self,
        source: Source,
        config: DataConfig,
        batch_size: int,
        seed: int,
        draw: Callable[[Batch], Batch] | None = None,
    ) -> None:
        self._source = source
        self._config = config
        self._batch_size = batch_size
        self._seed = seed
        self._draw = draw
        # A batch touches one epoch or two, a few threads a few batches: old permutations may go.
        self._order = lru_cache(maxsize=4)(self._permutation)

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of steps start_step, start_step + 1, ...; a bad picture is a LeanDiTError."""
        grain = _import_grain()
        threads = self._config.num_threads
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        # An element is a whole batch: Grain's bookkeeping per element can cost more than a small picture.
        dataset = grain.MapDataset.source(_Steps(self, start_step))
        iterator = iter(dataset.to_iter_dataset(options))
        try:
            yield from iterator
        finally:
            iterator.close()

    def batch(self, step: int) -> Batch:
        """Return the batch of one step: a pure function of the step."""
        first = step * self._batch_size
        indices = tuple(range(first, first + self._batch_size))
        examples = [self._source[self._position(n)] for n in indices]
        batch = Batch(
            images=self._images(examples, indices),
            labels=_labels(examples),
            texts=self._texts(examples, indices),
            indices=indices,
            keys=tuple(example.key for example in examples),
        )
        return batch if self._draw is None else self._draw(batch)

    def _permutation(self, epoch: int) -> np.ndarray:
        return generator(self._seed, Stream.ORDER, epoch).permutation(len(self._source))

    def _position(self, n: int) -> int:
        epoch, place = divmod(n, len(self._source))
        return int(self._order(epoch)[place])

    def _images(
        self, examples: list[Example], indices: tuple[int, ...]
    ) -> Float[Tensor, "batch channels height width"]:
        if all(example.is_latent for example in examples):
            config = self._config
            return torch.from_numpy(np.stack([fit_latent(e, config.channels, config.size) for e in examples]))
        pixels = np.stack([self._prepare(example, n) for example, n in zip(examples, indices, strict=True)])
        planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        return torch.from_numpy(planes).float().div_(127.5).sub_(1.0)

    def _prepare(self, example: Example, n: int) -> np.ndarray:
        image = to_channels(fit_picture(example.image, self._config.size), self._config.channels)
        flip = self._config.flip
        mirrored = flip > 0 and generator(self._seed, Stream.AUGMENT, n).random() < flip
        return image[:, ::-1] if mirrored else image

    def _texts(self, examples: list[Example], indices: tuple[int, ...]) -> tuple[str, ...] | None:
        if not all(example.captions for example in examples):
            return None
        return tuple(
            draw_caption(example.captions, generator(self._seed, Stream.CAPTION, n))
            for example, n in zip(examples, indices, strict=True)
        )


class _Steps:
    """The batches from one step on, as the random-access source that Grain reads."""

    def __init__(self, loader: Loader, start_step: int) -> None:
        self._loader = loader
        self._start_step = start_step

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> Batch:
        return self._loader.batch(self._start_step + index)


def _labels(examples: list[Example]) -> Int[Tensor, " batch"] | None:
    labels = [example.label for example in examples if example.label is not None]
    return torch.tensor(labels, dtype=torch.int64) if len(labels) == len(examples) else None


def _import_grain() -> Any:
    """Import Grain without its warning that JAX, which it does not need here, is not installed."""
    # absl first: it must create its logger itself, or the logger lacks what absl expects of it.
    from absl import logging as absl_logging

    def keep(record: logging.LogRecord) -> bool:
        return "jax profiler" not in record.getMessage()

    logger = absl_logging.get_absl_logger()
    logger.addFilter(keep)
    try:
        import grain
    finally:
        logger.removeFilter(keep)
    return grain
