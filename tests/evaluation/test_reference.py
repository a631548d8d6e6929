"""What a run is held against: its training data, folders, sources as JSON; and what is drawn to match."""

import dataclasses
import hashlib
import json
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leandit.data import EmojiConfig, Example, build_source
from leandit.errors import LeanDiTError
from leandit.evaluation.metric import Job, Plan
from leandit.evaluation.plans import drawn_sha256, plan_like_reference
from leandit.evaluation.reference import FittedSource, PixelHash, open_reference, read_batches
from leandit.grid import Grid
from leandit.sampling import LoadedRun, load


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> LoadedRun:
    return load(tiny_run)


def folder_of(path: Path, size: tuple[int, int], count: int = 3) -> Path:
    for n in range(count):
        pixels = np.random.default_rng(n).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path / f"{n}.png")
    return path


def test_by_default_it_is_the_training_data_as_the_run_saw_it(run: LoadedRun) -> None:
    reference = open_reference(run, None)
    source = build_source(run.config.data.source)
    assert (len(reference), reference.fingerprint) == (len(source), source.fingerprint)
    assert np.array_equal(reference[5].image, source[5].image)
    assert reference.change() is None


def test_larger_pictures_are_cropped_and_resized_and_it_says_so(run: LoadedRun, tmp_path: Path) -> None:
    reference = open_reference(run, str(folder_of(tmp_path, (80, 64))))
    assert reference[0].image.shape == (32, 32, 3)
    assert reference.change() == "cropped and resized to 32 x 32"
    grey = type(reference)(reference, Grid(32, 32), 1, "x", True)
    assert grey[0].image.shape == (32, 32, 1)
    assert grey.change() == "turned grey"


def test_smaller_pictures_are_refused(run: LoadedRun, tmp_path: Path) -> None:
    reference = open_reference(run, str(folder_of(tmp_path, (40, 31))))
    with pytest.raises(LeanDiTError, match=r"0\.png is 40 x 31 pixels, smaller than the run's pictures of 32 x 32"):
        list(read_batches(reference))


def test_a_source_may_be_given_as_json(run: LoadedRun) -> None:
    reference = open_reference(run, '{"type": "emoji", "split": "held_out"}')
    assert len(reference) == len(build_source(EmojiConfig(split="held_out")))
    with pytest.raises(LeanDiTError, match=r"split"):
        open_reference(run, '{"type": "emoji", "split": "heldout"}')
    with pytest.raises(LeanDiTError, match="--reference: not valid JSON"):
        open_reference(run, "{type: emoji}")


def test_a_folder_with_metadata_has_captions(run: LoadedRun, tmp_path: Path) -> None:
    folder_of(tmp_path, (32, 32), count=1)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a cat"}\n')
    assert open_reference(run, str(tmp_path))[0].text == "a cat"


def test_what_is_no_set_of_pictures_is_refused(run: LoadedRun, tmp_path: Path) -> None:
    with pytest.raises(LeanDiTError, match="no pictures here"):
        open_reference(run, str(tmp_path))
    with pytest.raises(LeanDiTError, match="no such folder"):
        open_reference(run, str(tmp_path / "nothing"))
    file = tmp_path / "statistics.npz"
    file.write_bytes(b"")
    with pytest.raises(LeanDiTError, match="a file, not a folder"):
        open_reference(run, str(file))


def test_the_pixel_hash_sees_pixels_order_and_shape_but_not_batches() -> None:
    pictures = torch.randint(0, 256, (6, 4, 4, 3), dtype=torch.uint8)

    def hashed(*batches: torch.Tensor) -> str:
        digest = PixelHash()
        for batch in batches:
            digest.update(batch)
        return digest.value()

    assert hashed(pictures) == hashed(*pictures.split(4))
    assert hashed(pictures) != hashed(pictures.flip(0))
    assert hashed(pictures) != hashed(pictures.view(6, 2, 8, 3))


def test_classes_are_drawn_in_the_proportions_of_the_reference(run: LoadedRun) -> None:
    reference = open_reference(run, None)
    size = len(reference)
    plan = plan_like_reference(Job(run, 2 * size, reference))
    counts = Counter(reference[n].label for n in range(size))
    assert Counter(plan.wanted or []) == {label: 2 * count for label, count in counts.items()}
    assert list(plan.seeds) == list(range(2 * size))
    fewer = plan_like_reference(Job(run, 10, reference))
    assert list(fewer.wanted or []) == list(plan.wanted or [])[:10]


def test_foreign_classes_give_the_runs_own_in_turn(run: LoadedRun, tmp_path: Path) -> None:
    reference = open_reference(run, json.dumps({"type": "class_folder", "path": str(folder_of(tmp_path, (32, 32)))}))
    assert plan_like_reference(Job(run, 5, reference)).wanted == [0, 1, 0, 1, 0]


def test_what_metrics_share_is_built_once_under_each_key(run: LoadedRun) -> None:
    job = Job(run, 5, open_reference(run, None))
    built: list[list[int]] = []

    def build() -> list[int]:
        built.append([])
        return built[-1]

    first, again, other = (job.kept(key, build) for key in ("a", "a", "b"))
    assert first is again is built[0]
    assert (other is built[1], len(built)) == (True, 2)


def test_what_was_drawn_has_a_hash() -> None:
    first, other = (drawn_sha256(Plan(wanted, range(2))) for wanted in ([0, 1], [1, 0]))
    assert first == hashlib.sha256(b"[0, 1]").hexdigest() != other
    assert drawn_sha256(Plan(None, range(2))) == hashlib.sha256(b"null").hexdigest()


def test_a_plan_keeps_no_pictures(run: LoadedRun) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    class Watched(FittedSource):
        def __getitem__(self, index: int) -> Example:
            nonlocal most
            example = dataclasses.replace(super().__getitem__(index), image=np.zeros((8, 8, 3), np.uint8))
            alive.append(weakref.ref(example.image))
            most = max(most, sum(each() is not None for each in alive))
            return example

    source = Watched(build_source(run.config.data.source), Grid(32, 32), 3, "watched", enlarges=True)
    assert plan_like_reference(Job(run, 30, source)).wanted
    assert (len(alive), most <= 2) == (30, True)
