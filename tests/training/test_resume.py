"""Runs that go on in other circumstances: data and encoders that have moved, another device, other intervals."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run import RunFolder
from leandit.run.checkpoint import find_newest
from leandit.training import run_training
from tiny_encoders import save_encoder, text_model

STEPS = ("train.batch_size=2", "train.steps=2")


def save_pictures(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (32, 32), (80 * index, 0, 0)).save(folder / f"{index}.png")
    return folder


def train(out: Path, path: str | Path, *overrides: str, resume: bool = False) -> int:
    source = ("data.source.type=class_folder", f"data.source.path={path}")
    return run_training(run_config("tiny", [*source, *STEPS, *overrides]), out, resume)


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (find_newest(out / "checkpoints") for out in (one, other))
    assert first is not None
    assert second is not None
    assert first.step == second.step
    a, b = first.tensors("model"), second.tensors("model")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_goes_on_elsewhere_to_the_same_bits(tmp_path: Path) -> None:
    """The folders of run and data have moved, the first machine had a GPU, and more is written down than before."""
    pictures, run, moved = save_pictures(tmp_path / "old" / "pictures"), tmp_path / "old" / "run", tmp_path / "new"
    train(tmp_path / "whole", pictures, "train.steps=4")
    train(run, pictures)
    (tmp_path / "old").rename(moved)
    folder = RunFolder(moved / "run")
    there = json.loads(folder.config.read_text())
    there["train"]["device"] = "cuda:1"
    folder.config.write_text(json.dumps(there))
    others = save_pictures(tmp_path / "others")
    validation = json.dumps({"type": "class_folder", "path": str(others)})
    watching = ("train.log_every=1", "train.checkpoint_every=1", "train.validate_every=2", "data.num_threads=2")
    settings = [f"data.source.path={moved / 'pictures'}", "train.steps=4", "train.device=cpu", *watching]
    config = run_config(str(folder.config), [*settings, f"data.validation={validation}"])
    assert run_training(config, folder.path, resume=True) == 0
    assert_same_weights(folder.path, tmp_path / "whole")
    assert "validation_loss" in folder.metrics.read_text()
    # What the run says of itself now holds for the next start, which needs no overrides.
    kept = folder.read_config()
    assert (kept.train.device, kept.data.source.path) == ("cpu", str(moved / "pictures"))
    assert run_training(run_config(str(folder.config)), folder.path, resume=True) == 0


def test_other_pictures_in_the_new_place_are_refused(tmp_path: Path) -> None:
    pictures = save_pictures(tmp_path / "pictures")
    train(tmp_path / "run", pictures)
    before = RunFolder(tmp_path / "run").config.read_bytes()
    for place, count in (("fewer", 2), ("renamed", 3), ("others of the same names", 3)):
        other = save_pictures(tmp_path / place, count)
        if place == "renamed":
            (other / "0.png").rename(other / "x.png")
        if place.startswith("others"):
            Image.new("RGB", (32, 32), "navy").save(other / "1.png")
        with pytest.raises(LeanDiTError, match=r"the data has changed: 3 pictures[^$]*correct the path"):
            train(tmp_path / "run", other, "train.steps=4", resume=True)
    assert RunFolder(tmp_path / "run").config.read_bytes() == before


def test_precision_is_chosen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = save_pictures(tmp_path / "pictures")
    for steps, fast in ((2, True), (3, False)):
        monkeypatch.setattr("leandit.run.resolve.fast_bf16", lambda device, fast=fast: fast)
        train(tmp_path / "run", pictures, "train.precision=auto", f"train.steps={steps}", resume=steps > 2)
        assert RunFolder(tmp_path / "run").read_config().train.precision == "bf16"
    with pytest.raises(LeanDiTError, match=r"train\.precision: 'bf16' in the run, 'fp32' now"):
        train(tmp_path / "run", pictures, "train.precision=fp32", "train.steps=4", resume=True)


def test_paths_are_kept_as_written_so_that_a_project_can_move_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    save_pictures(project / "pictures")
    monkeypatch.chdir(project)
    train(Path("run"), "pictures")
    assert RunFolder(Path("run")).read_config().data.source.path == "pictures"
    monkeypatch.chdir(tmp_path)
    project.rename(tmp_path / "moved")
    # From elsewhere, a relative path needs to be said anew; from the project's folder it holds.
    with pytest.raises(LeanDiTError, match=r"pictures: no such folder; correct data\.source\.path \(now in"):
        train(Path("moved/run"), "pictures", "train.steps=3", resume=True)
    (tmp_path / "link").symlink_to(tmp_path / "moved" / "pictures")
    train(Path("moved/run"), "link", "train.steps=3", resume=True)
    assert RunFolder(Path("moved/run")).read_config().data.source.path == "link"
    monkeypatch.chdir(tmp_path / "moved")
    train(Path("run"), "pictures", "train.steps=4", resume=True)
    assert find_newest(Path("run/checkpoints")).step == 4  # type: ignore[union-attr]


def test_an_encoder_may_move_and_not_be_another_one(tmp_path: Path) -> None:
    first, moved, other = tmp_path / "first", tmp_path / "moved", tmp_path / "other"
    save_encoder(first, "clip")
    save_encoder(other, "clip", seed=1)

    def start(folder: Path, *overrides: str, resume: bool = False) -> int:
        model = text_model({"type": "clip", "path": str(folder), "max_tokens": 12})
        return run_training(run_config("tiny", [*model, *STEPS, *overrides]), tmp_path / "run", resume)

    start(first)
    shutil.move(first, moved)
    with pytest.raises(LeanDiTError, match="not the one that the run was trained with"):
        start(other, "train.steps=4", resume=True)
    assert start(moved, "train.steps=3", f"text.cache={tmp_path / 'cache'}", resume=True) == 0
    again = [f"text.encoders.0.path={moved}", "train.steps=4"]
    assert run_training(run_config(str(tmp_path / "run" / "config.json"), again), tmp_path / "run", True) == 0


OLDER = {
    "adafactor": {"lr": 1e-3, "beta2_decay": -0.8, "clip_threshold": 1.0, "weight_decay": 0.0},
    "rmsprop": {"lr": 1e-3, "momentum": 0.9, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0},
}


@pytest.mark.parametrize("kind", OLDER)
def test_a_run_keeps_the_optimiser_of_an_older_version(tmp_path: Path, kind: str) -> None:
    """Its own config.json continues it; the optimiser that now has the same name is another one, and is refused."""
    table = json.dumps({"type": kind, **OLDER[kind]})
    pictures = save_pictures(tmp_path / "pictures")
    for name in ("whole", "run"):
        train(tmp_path / name, pictures, f"optimizer={table}", f"train.steps={4 if name == 'whole' else 2}")
    folder = RunFolder(tmp_path / "run")
    as_written_then = json.loads(folder.config.read_text()) | {"optimizer": json.loads(table)}
    folder.config.write_text(json.dumps(as_written_then))
    with pytest.raises(LeanDiTError, match=r"optimizer\.(beta1: None|damped: False) in the run"):
        train(folder.path, pictures, f"optimizer.type={kind}", "optimizer.lr=1e-3", "train.steps=4", resume=True)
    assert run_training(run_config(str(folder.config), ["train.steps=4"]), folder.path, resume=True) == 0
    assert_same_weights(folder.path, tmp_path / "whole")


def test_a_picture_that_was_replaced_under_its_name_is_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = save_pictures(tmp_path / "pictures")
    train(tmp_path / "run", pictures)
    Image.new("RGB", (32, 32), "navy").save(pictures / "1.png")
    train(tmp_path / "run", pictures, "train.steps=3", resume=True)
    assert "state.json: some pictures are not the same as when the run was stopped" in caplog.text
    caplog.clear()
    train(tmp_path / "run", pictures, "train.steps=4", resume=True)
    assert "some pictures" not in caplog.text


def test_a_run_of_the_first_checkpoint_format_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    pictures, run = save_pictures(tmp_path / "pictures"), tmp_path / "run"
    train(tmp_path / "whole", pictures, "train.steps=4")
    train(run, pictures)
    for folder in (run / "checkpoints").iterdir():
        state = json.loads((folder / "state.json").read_text())
        for name in ("metrics", "idle_parameters", "fingerprint", "contents"):
            del state[name]
        content = json.dumps(state).encode()
        (folder / "state.json").write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["state.json"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        old = {name: manifest[name] for name in ("format", "step", "files")} | {"version": 1}
        (folder / "manifest.json").write_text(json.dumps(old))
    (run / "run.json").unlink()
    train(run, pictures, "train.steps=4", resume=True)
    assert_same_weights(run, tmp_path / "whole")
    newest = find_newest(run / "checkpoints")
    assert newest is not None
    assert newest.manifest.run == RunFolder(run).read_id()


def test_metrics_that_were_lost_after_the_last_save_are_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures, run = save_pictures(tmp_path / "pictures"), tmp_path / "run"
    train(run, pictures, "train.log_every=1")
    train(run, pictures, "train.log_every=1", "train.steps=3", resume=True)
    assert "metrics.jsonl" not in caplog.text
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    lost = len(lines[-1])
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:-1]))
    train(run, pictures, "train.log_every=1", "train.steps=4", resume=True)
    assert f"metrics.jsonl: {lost} bytes are missing since the checkpoint was saved" in caplog.text
    caplog.clear()
    changed = (run / "metrics.jsonl").read_bytes().replace(b'"step": 1', b'"step": 0')
    (run / "metrics.jsonl").write_bytes(changed)
    train(run, pictures, "train.log_every=1", "train.steps=5", resume=True)
    assert "metrics.jsonl: lines have changed since the checkpoint was saved" in caplog.text
