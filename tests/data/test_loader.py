"""The stream of batches: a pure function of (seed, sample number), whatever the threads and first step."""

from __future__ import annotations

import logging
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch

from leandit.data import Batch, Caption, DataConfig, EmojiConfig, Example, Loader
from leandit.errors import LeanDiTError
from leandit.random import Stream, generator


class Numbered:
    """Pictures whose left column holds their own number, so that a batch shows what was read and mirrored."""

    class_names = ("even", "odd")

    def __init__(self, count: int, bad: int | None = None) -> None:
        self._count = count
        self._bad = bad

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        if index == self._bad:
            raise LeanDiTError(f"picture {index} is bad")
        image = np.zeros((4, 4, 3), np.uint8)
        image[:, 0] = index + 1
        return Example(image, index % 2, (Caption(f"number {index}"),), str(index))


def loader(count: int = 10, batch_size: int = 4, seed: int = 0, bad: int | None = None, **options: object) -> Loader:
    config = DataConfig(source=EmojiConfig(), image_size=4, **options)
    return Loader(Numbered(count, bad), config, batch_size, seed)


def take(stream: Loader, count: int, start_step: int = 0) -> list[Batch]:
    return list(islice(stream.batches(start_step), count))


def same(one: list[Batch], two: list[Batch]) -> bool:
    return len(one) == len(two) and all(
        torch.equal(a.images, b.images) and (a.indices, a.keys, a.texts) == (b.indices, b.keys, b.texts)
        for a, b in zip(one, two, strict=True)
    )


def test_a_batch_holds_what_its_keys_say() -> None:
    (batch,) = take(loader(), 1)
    assert (batch.images.shape, batch.images.dtype) == (torch.Size([4, 3, 4, 4]), torch.float32)
    assert batch.images.is_contiguous()
    numbers = [int(key) for key in batch.keys]
    expected = torch.tensor(numbers) + 1
    assert torch.allclose((batch.images[:, 1, 2, 0] + 1) * 127.5, expected.float(), atol=1e-4)
    assert (batch.images[:, :, :, 1:] == -1).all()
    assert batch.labels is not None
    assert batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == [number % 2 for number in numbers]
    assert batch.texts == tuple(f"number {number}" for number in numbers)
    assert batch.indices == (0, 1, 2, 3)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (7, 7), (3, 8), (1, 2)])
def test_every_epoch_is_a_permutation_and_batches_cross_its_end(count: int, batch_size: int) -> None:
    epochs = 5
    batches = take(loader(count, batch_size), -(-count * epochs // batch_size))
    keys = [int(key) for batch in batches for key in batch.keys]
    assert [n for batch in batches for n in batch.indices] == list(range(len(keys)))
    assert all(len(batch.keys) == batch_size for batch in batches)
    for epoch in range(epochs):
        assert sorted(keys[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_differ() -> None:
    first, second = take(loader(100, 100), 2)
    assert first.keys != second.keys
    assert first.keys != take(loader(100, 100, seed=1), 1)[0].keys
    assert first.keys != tuple(str(i) for i in range(100))


@pytest.mark.parametrize("num_threads", [1, 4])
def test_threads_do_not_change_the_stream(num_threads: int) -> None:
    assert same(take(loader(flip=0.5), 20), take(loader(flip=0.5, num_threads=num_threads), 20))


@pytest.mark.parametrize("num_threads", [0, 2])
def test_the_stream_resumes_at_any_step(num_threads: int) -> None:
    whole = take(loader(flip=0.5), 12)
    for start in (1, 5, 11):
        part = take(loader(flip=0.5, num_threads=num_threads), 12 - start, start)
        assert same(part, whole[start:])
    far = take(loader(), 1, 10**12)[0]
    assert far.indices[0] == 4 * 10**12


def test_flips_depend_on_seed_and_sample_number_alone() -> None:
    def flipped(**options: int) -> list[bool]:
        batches = take(loader(flip=0.3, **options), 1000 // options.get("batch_size", 4))
        return [bool(image[0, 0, 3] > -1) for batch in batches for image in batch.images]

    expected = [generator(0, Stream.AUGMENT, n).random() < 0.3 for n in range(1000)]
    assert flipped() == expected
    assert flipped(batch_size=50, count=17) == expected
    assert flipped(seed=1) != expected
    assert 0.24 < np.mean(expected) < 0.36
    assert all(image[0, 0, 3] > -1 for image in take(loader(flip=1.0), 1)[0].images)


def test_one_channel_and_no_labels() -> None:
    class Plain(Numbered):
        class_names = ()

        def __getitem__(self, index: int) -> Example:
            return Example(np.full((8, 6, 3), 255, np.uint8), None, (), "x")

    config = DataConfig(source=EmojiConfig(), image_size=4, channels=1)
    batch = next(Loader(Plain(3), config, 2, 0).batches())
    assert batch.images.shape == (2, 1, 4, 4)
    assert (batch.images == 1).all()
    assert batch.labels is None
    assert batch.texts is None


@pytest.mark.parametrize("num_threads", [0, 3])
def test_an_error_in_a_reading_thread_reaches_the_caller(num_threads: int) -> None:
    with pytest.raises(LeanDiTError) as caught:
        take(loader(bad=7, num_threads=num_threads), 3)
    assert str(caught.value) == "picture 7 is bad"


def test_grain_is_imported_late_and_quietly() -> None:
    script = (
        "import sys, leandit.data as d\n"
        "assert 'grain' not in sys.modules\n"
        "c = d.DataConfig(source=d.EmojiConfig())\n"
        "next(d.Loader(d.build_source(c.source), c, 2, 0).batches())\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_no_filter_stays_on_the_log() -> None:
    take(loader(), 1)
    assert logging.getLogger("absl").filters == []
