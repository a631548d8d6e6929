"""Validation data are checked at the start, as training data are, and what was read is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run import RunConfig
from leandit.training import Callback, run_training

HEARTS = {"type": "emoji", "split": "held_out", "classes": {"heart": ["heart"], "cat": ["cat-face"]}}


class Lines(Callback):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_data(self, lines: Sequence[str]) -> None:
        self.lines += lines


def config(validation: dict[str, Any], *overrides: str) -> RunConfig:
    tiny = run_config("tiny", ["train.steps=1", "train.validate_every=1", *overrides])
    return tiny.replace(data=tiny.data.replace(validation=validation))


def message(validation: dict[str, Any], out: Path) -> str:
    with pytest.raises(LeanDiTError) as caught:
        run_training(config(validation), out)
    assert not out.exists()
    assert "data.validation" in str(caught.value)
    assert "data.source.path" not in str(caught.value)
    return str(caught.value)


def test_what_was_read_is_said_first(tmp_path: Path) -> None:
    callback = Lines()
    assert run_training(config(HEARTS), tmp_path / "run", callbacks=[callback]) == 0
    training, validation = callback.lines
    assert training.startswith("data.source: ")
    assert " pictures in 2 classes, with captions" in training
    assert validation.startswith("data.validation: ")


def test_classes_are_the_same_by_name(tmp_path: Path) -> None:
    swapped = {**HEARTS, "classes": dict(reversed(list(HEARTS["classes"].items())))}  # type: ignore[attr-defined]
    assert "class 0 is 'cat' here and 'heart' there" in message(swapped, tmp_path / "run")
    assert "no labels" in message({"type": "scenes", "length": 4}, tmp_path / "run")


def test_a_missing_folder_and_a_bad_picture_are_found_before_the_first_step(tmp_path: Path) -> None:
    missing = {"type": "class_folder", "path": str(tmp_path / "none")}
    assert "correct data.validation.path" in message(missing, tmp_path / "run")
    for name in ("heart", "cat"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "set" / name / "a.png")
    (tmp_path / "set/cat/a.png").write_bytes(b"nonsense")
    held_out = {"type": "class_folder", "path": str(tmp_path / "set")}
    with pytest.raises(LeanDiTError, match="class 0 is 'cat' here"):
        run_training(config(held_out), tmp_path / "run")
    with pytest.raises(LeanDiTError, match="not a picture of a known format"):
        run_training(config(held_out, "model.num_classes=0"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
