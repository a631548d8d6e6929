"""The pictures that a run leaves behind, whatever its classes are called and however many the model has."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from leandit.api import train
from leandit.pictures import FinalPictures, SampleGrids
from leandit.presets import run_config
from leandit.training import Callback, StepReport, Trainer, run_training

FINAL = ("samples.png", "loss.png", "compute.png")


def check_pictures(folder: Path) -> None:
    for name in FINAL:
        with Image.open(folder / name) as picture:
            picture.load()


def test_a_model_with_more_classes_than_the_data(tmp_path: Path) -> None:
    assert train(run_config("tiny", ["model.num_classes=10", "train.steps=1"]), tmp_path / "run") == 0
    check_pictures(tmp_path / "run")


def test_class_names_are_not_read_as_formulas(tmp_path: Path) -> None:
    data = 'data.source.classes={"$\\\\frac{$": ["heart"], "a_$b$": ["cat-face"]}'
    assert train(run_config("tiny", [data, "train.steps=1"]), tmp_path / "run") == 0
    check_pictures(tmp_path / "run")


class StopsAfter(Callback):
    """Asks the trainer to stop, as a signal does, once this step is done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        if report.step == self.step:
            trainer.stop.exit_code = 143


@pytest.mark.parametrize("step", [1, 2])
def test_a_signal_ends_the_drawing(step: int, tmp_path: Path) -> None:
    config = run_config("tiny", ["train.steps=2", "train.sample_every=1"])
    callbacks = [StopsAfter(step), SampleGrids(), FinalPictures()]
    assert run_training(config, tmp_path / "run", callbacks=callbacks) == 143
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").is_dir()
    assert not list((tmp_path / "run").rglob("samples.png"))
    assert bool(list((tmp_path / "run").rglob("grids/*.png"))) == (step == 2)


def test_a_run_made_longer_keeps_the_pictures_of_its_first_end(tmp_path: Path) -> None:
    ends = []
    for steps in (1, 2):
        assert train(run_config("tiny", [f"train.steps={steps}"]), tmp_path, resume=steps == 2) == 0
        ends.append([(tmp_path / name).read_bytes() for name in ("samples.png", "compute.png")])
        for step, pictures in enumerate(ends, 1):
            kept = [tmp_path / "grids" / f"{name}-{step:08d}.png" for name in ("step", "compute")]
            assert [path.read_bytes() for path in kept] == pictures
    assert ends[0][0] != ends[1][0]


@pytest.mark.parametrize(
    ("steps", "given", "every"),
    [(1100, '"auto"', 220), (400_000, '"auto"', 10_000), (3, '"auto"', 1), (100, "7", 7), (100, "null", None)],
)
def test_a_grid_at_least_every_fifth_of_a_run(steps: int, given: str, every: int | None) -> None:
    train = run_config("quickstart", [f"train.steps={steps}", f"train.sample_every={given}"]).train
    assert train.steps_between_grids == every
