"""Evaluating runs of other kinds: of text, of grey pictures, of latents."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leandit.api import train
from leandit.cli.main import main
from leandit.data import build_source
from leandit.evaluation.held_out import ValidationLossMetric
from leandit.evaluation.reference import open_reference
from leandit.presets import run_config
from tiny_encoders import text_model
from tiny_judges import text_job

pytestmark = pytest.mark.usefixtures("no_figures")

_SHORT = ["train.steps=2"]


def result(out: Path) -> dict[str, Any]:
    (path,) = out.glob("*.json")
    return json.loads(path.read_text())


def test_a_text_run_draws_the_captions_of_its_training_data(
    tmp_path: Path, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = text_model({"type": "sentence", "path": str(folders["sentence"]), "max_tokens": 12})
    held_out = 'data.validation={"type": "emoji", "split": "held_out", "classes": {"cat": ["animal-mammal"]}}'
    config = run_config("tiny", [*_SHORT, *encoder, held_out])
    assert train(config, tmp_path / "run") == 0
    assert main(["evaluate", str(tmp_path / "run"), "kid", "validation_loss", "--num-samples", "20"]) == 0
    record = result(tmp_path / "run/evaluation")
    held = record["metrics"]["validation_loss"]["made_of"]["held_out"]
    assert held["pictures"] == len(build_source(config.data.validation))
    assert len(held["texts_sha256"]) == 64
    assert record["metrics"]["kid"]["samples"] == 20
    plain = tmp_path / "plain"
    plain.mkdir()
    for n in range(20):
        Image.new("RGB", (32, 32), (n, n, n)).save(plain / f"{n}.png")
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "kid", "--reference", str(plain)]) == 2
    assert "has no caption, and the run draws from captions" in capsys.readouterr().err


def test_an_unconditional_grey_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "grey"
    folder.mkdir()
    for n in range(20):
        pixels = np.random.default_rng(n).integers(0, 256, (16, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    source = f'data.source={{"type": "class_folder", "path": "{folder}"}}'
    small = ["data.image_size=16", "data.channels=1", "model.patch_size=8", "model.dim=16"]
    assert train(run_config("tiny", [*_SHORT, source, *small]), tmp_path / "run") == 0
    assert main(["evaluate", str(tmp_path / "run"), "kid", "precision_recall", "--num-samples", "20"]) == 0
    assert "20 pictures, cropped and resized to 16 x 16 and turned grey" in capsys.readouterr().out
    assert result(tmp_path / "run/evaluation")["conditions"]["picture"] == {"size": 16, "channels": 1}


def test_a_run_that_learned_latents_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    folder = tmp_path / "latents"
    folder.mkdir()
    latents = np.random.default_rng(0).normal(size=(8, 4, 8, 8)).astype(np.float32)
    save_file({"latents": latents}, folder / "part.safetensors")
    (folder / "part.jsonl").write_text('{"label": 0}\n' * 8)
    source = f'data.source={{"type": "latents", "path": "{folder}"}}'
    small = ["data.image_size=8", "data.channels=4", "model.patch_size=4"]
    assert train(run_config("tiny", [*_SHORT, source, *small]), tmp_path / "run") == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert "the run learned latents" in capsys.readouterr().err


def test_other_captions_of_the_same_pictures_are_other_held_out_data(tmp_path: Path, folders: dict[str, Path]) -> None:
    made_of = []
    for name, caption in (("first", "a red apple"), ("again", "a red apple"), ("other", "a green tiger")):
        (tmp_path / name).mkdir()
        for n in range(2):
            Image.new("RGB", (32, 32), (n, n, n)).save(tmp_path / name / f"{n}.png")
        lines = [json.dumps({"file_name": f"{n}.png", "text": caption}) for n in range(2)]
        (tmp_path / name / "metadata.jsonl").write_text("\n".join(lines))
        held_out = text_job(folders["sentence"])
        job = dataclasses.replace(held_out, reference=open_reference(held_out.run, str(tmp_path / name)))
        made_of.append(ValidationLossMetric().measure(job, None).made_of)
    assert made_of[0] == made_of[1]
    assert made_of[0]["held_out"]["pixels_sha256"] == made_of[2]["held_out"]["pixels_sha256"]
    assert made_of[0] != made_of[2]
