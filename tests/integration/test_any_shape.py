"""A run on pictures that are no squares, from training over resuming and drawing to its numbers and its report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leandit import load, sample
from leandit.api import train
from leandit.cli import main
from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run.checkpoint import find_newest
from leandit.training import run_training

HELD_OUT = json.dumps({"type": "emoji", "split": "all", "classes": {"heart": ["heart"], "cat": ["cat-face"]}})
SHAPE = [
    "data.image_size=24x40",
    f"data.validation={HELD_OUT}",
    "train.checkpoint_every=2",
    "train.batch_size=4",
    "sampling.sampler.steps=2",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("shaped") / "run"
    assert train(run_config("tiny", ["train.steps=4", "train.sample_every=2", *SHAPE]), out) == 0
    return out


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_training_leaves_pictures_of_that_shape(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    assert (config["data"]["image_size"], config["model"]["input_size"]) == ([24, 40], [24, 40])
    width, height = size(run / "samples.png")
    # Two rows of four pictures, twice as large, with four pixels between them, and the classes' names before them.
    assert height == 2 * (48 + 4) + 4
    assert width > 4 * (80 + 4)
    assert size(next((run / "grids").iterdir())) == (width, height)
    assert (run / "compute.png").exists()


def test_a_broken_off_run_ends_in_the_same_bits(run: Path, tmp_path: Path) -> None:
    assert run_training(run_config("tiny", ["train.steps=2", *SHAPE]), tmp_path / "run") == 0
    assert run_training(run_config("tiny", ["train.steps=4", *SHAPE]), tmp_path / "run", resume=True) == 0
    for group in ("model", "ema", "optimizer"):
        one, other = (find_newest(path / "checkpoints").tensors(group) for path in (run, tmp_path / "run"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_any_shape_that_the_patches_divide_can_be_drawn(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    loaded = load(run)
    own = sample(loaded, ["cat"], [3, 4])
    assert own.shape == (2, 24, 40, 3)
    assert torch.equal(own, sample(loaded, ["cat"], [3, 4], size=(24, 40)))
    assert sample(loaded, ["cat"], [3], size=16).shape == (1, 16, 16, 3)
    tall = sample(loaded, ["cat"], [3, 4], size=(48, 32))
    assert tall.shape == (2, 48, 32, 3)
    alone = sample(loaded, ["cat"], [4], size=(48, 32))
    assert (alone[0].int() - tall[1].int()).abs().max() <= 1
    command = [
        "sample",
        str(run),
        "--labels",
        "cat",
        "--seeds",
        "3-4",
        "--size",
        "48x32",
        "--npz",
        "--out",
        str(tmp_path),
    ]
    assert main(command) == 0
    assert size(tmp_path / "label-0001-cat_seed-000003.png") == (32, 48)
    assert np.array_equal(np.load(tmp_path / "samples.npz")["images"], tall.numpy())
    with pytest.raises(LeanDiTError, match=r"size 20x32 .* is not divisible by the model's patch_size = 8"):
        sample(loaded, ["cat"], [3], size=(20, 32))
    assert main([*command[:-2], "--size", "20x32"]) == main([*command[:-2], "--size", "4by8"]) == 2
    assert "patch_size = 8" in (message := capsys.readouterr().err)
    assert "'4by8' is no size: give one number for a square, or height and width" in message


def test_what_it_draws_is_measured(run: Path, tmp_path: Path) -> None:
    command = ["evaluate", str(run), "kid", "validation_loss", "--num-samples", "20", "--out", str(tmp_path)]
    assert main(command) == 0
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert record["conditions"]["picture"] == {"size": [24, 40], "channels": 3}
    assert set(record["metrics"]) == {"kid", "validation_loss"}
    assert main(["evaluate", "--compare", *[str(next(tmp_path.glob("*.json")))] * 2]) == 0


def test_its_report_has_maps_of_that_shape(run: Path, tmp_path: Path) -> None:
    assert main(["probe", str(run), "--seeds", "0", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["run"]["grid"] == [3, 5]
    assert {len(tokens) for moment in report["position"]["maps"] for layer in moment for tokens in layer} == {15}
    assert (tmp_path / "maps.png").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.image_size=24x42", "data.image_size = 24x42 is not divisible by model.patch_size = 8"),
        ("model.input_size=[24,42]", "input_size = 24x42 is not divisible by patch_size = 8"),
        (
            "model.input_size=[40,24]",
            "model.input_size = 40x24 and model.channels = 3 do not fit data.image_size = 24x40",
        ),
        ("data.image_size=[24,0]", r"data.image_size: \[24, 0\] is no size: give one number for a square"),
        ("data.image_size=24x5000", "image_size = 24x5000: a picture has at most 4096 pixels a side"),
    ],
)
def test_shapes_that_do_not_fit_are_told_with_their_field(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(LeanDiTError, match=message):
        train(run_config("tiny", [*SHAPE, override]), tmp_path / "run")
