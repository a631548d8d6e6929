"""The run's folder: what is written at a start, which folders are refused, what may change on resuming."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run import RunConfig, RunFolder
from leandit.run import folder as folder_module
from leandit.training import run_training


@pytest.fixture
def config() -> RunConfig:
    return run_config("tiny")


def start(folder: RunFolder, config: RunConfig, resume: bool) -> None:
    """As far as the first checkpoint."""
    folder.check(config, resume)
    folder.record(config)
    (folder.checkpoints / "step-00000001").mkdir(parents=True, exist_ok=True)


def test_a_start_restates_the_config_and_notes_the_environment(tmp_path: Path, config: RunConfig) -> None:
    folder = RunFolder(tmp_path / "a" / "run")
    start(folder, config, resume=False)
    assert folder.read_config() == config
    assert json.loads(folder.config.read_text()) == config.model_dump(mode="json")
    start(folder, config, resume=True)
    lines = [json.loads(line) for line in folder.environment.read_text().splitlines()]
    assert len(lines) == 2
    assert {"date", "command", "python", "machine", "versions", "commit"} == set(lines[0])
    assert lines[0]["versions"]["torch"] is not None


def test_a_run_is_not_overwritten(tmp_path: Path, config: RunConfig) -> None:
    start(RunFolder(tmp_path), config, resume=False)
    with pytest.raises(LeanDiTError, match=r"already in this folder[^$]*--resume[^$]*another --out"):
        start(RunFolder(tmp_path), config, resume=False)


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path, config: RunConfig) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(LeanDiTError, match="not empty and contains no run"):
            start(RunFolder(tmp_path), config, resume=resume)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_resuming_lists_every_key_that_differs(tmp_path: Path, config: RunConfig) -> None:
    folder = RunFolder(tmp_path / "run")
    start(folder, config, resume=False)
    before = folder.config.read_bytes()
    with pytest.raises(LeanDiTError) as error:
        start(folder, run_config("tiny", ["optimizer.lr=0.5", "model.depth=3", "train.keep=4"]), resume=True)
    message = str(error.value)
    assert "optimizer.lr: 0.001 in the run, 0.5 now" in message
    assert "model.depth: 2 in the run, 3 now" in message
    assert "train.keep" not in message
    assert folder.config.read_bytes() == before


@pytest.mark.parametrize(
    "override",
    ["train.log_every=1", "train.checkpoint_every=7", "train.keep=5", "data.num_threads=2", "train.tensorboard=true"],
)
def test_what_changes_no_number_may_change(tmp_path: Path, config: RunConfig, override: str) -> None:
    start(RunFolder(tmp_path), config, resume=False)
    start(RunFolder(tmp_path), run_config("tiny", [override]), resume=True)


def test_more_steps_only_where_no_decay_depends_on_them(tmp_path: Path) -> None:
    constant, decaying = tmp_path / "constant", tmp_path / "decaying"
    start(RunFolder(constant), run_config("tiny"), resume=False)
    start(RunFolder(constant), run_config("tiny", ["train.steps=40"]), resume=True)
    start(RunFolder(decaying), run_config("tiny", ["schedule.decay=linear"]), resume=False)
    with pytest.raises(LeanDiTError, match=r"train\.steps: 20 in the run, 40 now"):
        start(RunFolder(decaying), run_config("tiny", ["schedule.decay=linear", "train.steps=40"]), resume=True)


def test_a_damaged_or_missing_config_is_named(tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(LeanDiTError, match=r"no config\.json"):
        RunFolder(tmp_path / "none").read_config()
    folder = RunFolder(tmp_path / "run")
    start(folder, config, resume=False)
    folder.config.write_text(folder.config.read_text()[:50])
    with pytest.raises(LeanDiTError, match=r"config\.json: not valid JSON: .*line \d+"):
        start(folder, config, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_without_a_checkpoint_yet_makes_room_for_another_config(tmp_path: Path, resume: bool) -> None:
    folder = RunFolder(tmp_path)
    folder.record(run_config("tiny"))
    folder.checkpoints.mkdir()
    folder.check(run_config("tiny", ["optimizer.lr=0.5"]), resume)
    (folder.checkpoints / "step-00000010.corrupt-1").mkdir()
    with pytest.raises(LeanDiTError, match="another configuration" if resume else "already in this folder"):
        folder.check(run_config("tiny", ["optimizer.lr=0.5"]), resume)


def repository(root: Path, ran: Path) -> None:
    """A git repository whose config names a program, as a hostile one may."""
    program = root / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.fsmonitor=false")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"], ["config", "core.fsmonitor", str(program)]):
        subprocess.run(["git", *settings, *command], cwd=root, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("layout", ["lib/python3.11/site-packages", "src", "vendor/src"])
def test_no_repository_but_leandits_own_is_asked_and_no_program_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    module = tmp_path / layout / "leandit" / "run" / "folder.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    repository(tmp_path, tmp_path / "ran")
    (tmp_path / "changed").write_text("")
    # The program would run: this is what asking plainly does.
    subprocess.run(["git", "status"], cwd=tmp_path, check=False, capture_output=True)
    assert (tmp_path / "ran").exists()
    (tmp_path / "ran").unlink()
    monkeypatch.setattr(folder_module, "__file__", str(module))
    commit = folder_module.environment()["commit"]
    assert not (tmp_path / "ran").exists()
    assert (commit is not None) == (layout == "src")


@pytest.mark.parametrize("there", [None, "metrics.jsonl", "checkpoints/step-00000001/x", "notes.txt", "tensorboard/e"])
def test_a_start_is_undone_only_if_nothing_is_lost(tmp_path: Path, config: RunConfig, there: str | None) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.check(config, False)
    folder.record(config)
    folder.claim_id()
    folder.metrics.touch()
    (folder.path / ".lock").touch()
    if there is not None:
        (folder.path / there).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / there).write_text("x")
    before = sorted(folder.path.rglob("*"))
    folder.undo_start()
    assert folder.path.exists() is (there is not None)
    assert sorted(folder.path.rglob("*")) == (before if there else [])


def test_a_start_that_fails_leaves_an_earlier_one_alone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    broken = run_config("tiny", ["model.moe.impl=triton"])
    RunFolder(out).record(broken)  # a start that was killed
    with pytest.raises(LeanDiTError, match="triton"):
        run_training(broken, out)
    assert (out / "config.json").exists()
    with pytest.raises(LeanDiTError, match="triton"):
        run_training(broken, tmp_path / "new")
    assert not (tmp_path / "new").exists()
