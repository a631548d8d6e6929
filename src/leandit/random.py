"""Random numbers as pure functions of (seed, stream, index). There is no generator state to save or synchronise.

Every draw comes from Philox, a counter-based generator: the seed and the stream are its key, the index of the sample
is its counter. So a sample of a step gets the same noise for any number of workers, ranks or restarts, and a resumed
run draws the same numbers as a run without a stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """The purpose of a draw. Streams never share numbers."""

    ORDER = 0
    AUGMENT = 1
    NOISE = 2
    TIMESTEP = 3
    LABEL_DROP = 4
    INIT = 5
    SAMPLE = 6
    SAMPLER_STEP = 7
    CAPTION = 8
    VALIDATION = 9
    MASK = 10
    SCENE = 11


def generator(seed: int, stream: Stream, index: int, step: int = 0) -> np.random.Generator:
    """Return the generator of one sample. It depends on the arguments only."""
    return np.random.Generator(np.random.Philox(key=[seed, int(stream)], counter=[0, 0, step, index]))


def normal(seed: int, stream: Stream, indices: Sequence[int], shape: tuple[int, ...], step: int = 0) -> np.ndarray:
    """Return standard normal float32 noise, one independent draw of `shape` per index: (len(indices), *shape)."""
    draws = [generator(seed, stream, i, step).standard_normal(shape, dtype=np.float32) for i in indices]
    return np.stack(draws) if draws else np.empty((0, *shape), np.float32)


def uniform(seed: int, stream: Stream, indices: Sequence[int], step: int = 0) -> np.ndarray:
    """Return one float64 per index, uniform on [0, 1)."""
    return np.array([generator(seed, stream, i, step).random() for i in indices], dtype=np.float64)


def subsets(seed: int, stream: Stream, indices: Sequence[int], size: int, count: int) -> np.ndarray:
    """Return for each index `count` of the numbers 0..size-1 in ascending order. All subsets are equally likely."""
    draws = [np.sort(generator(seed, stream, i).permutation(size)[:count]) for i in indices]
    return np.stack(draws) if draws else np.empty((0, count), np.int64)
