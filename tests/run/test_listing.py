"""Lists of runs: what is told of finished, stopped, running and damaged ones."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from leandit.api import train
from leandit.cli import main
from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run.listing import list_runs
from leandit.run.lock import RunLock
from leandit.training import Callback, RunView, StepReport, run_training

pytestmark = pytest.mark.usefixtures("no_figures")


class Stop(Callback):
    def on_step(self, run: RunView, report: StepReport) -> None:
        if report.step == 2:
            run.stop.exit_code = 143


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("some") / "runs"
    validation = 'data.validation={"type":"emoji","classes":{"heart":["heart"],"cat":["cat-face"]}}'
    small = ["train.checkpoint_every=1", "train.log_every=1", "train.validate_every=1", validation]
    assert train(run_config("tiny", [*small, "train.steps=1"]), root / "finished") == 0
    assert run_training(run_config("tiny", [*small, "model.moe=null"]), root / "stopped", callbacks=[Stop()]) == 143
    shutil.copytree(root / "finished", root / "damaged")
    (root / "damaged/config.json").write_text("{")
    (root / "notes").mkdir()
    (root / "notes/config.json").write_text("{}")  # somebody else's
    for number, name in enumerate(("damaged", "stopped", "finished")):
        for path in (root / name).iterdir():
            os.utime(path, (1e9 + number, 1e9 + number))
    return root


def test_each_run_with_its_state_and_numbers(runs: Path) -> None:
    finished, stopped, damaged = list_runs([runs])
    assert [run.path.name for run in (finished, stopped, damaged)] == ["finished", "stopped", "damaged"]
    assert (finished.state, finished.step, finished.steps) == ("finished", 1, 1)
    assert (stopped.state, stopped.step, stopped.steps) == ("stopped", 2, 20)
    assert finished.model == "dit 2 x 32, expert_race 2/4"
    assert stopped.model == "dit 2 x 32"
    lines = [json.loads(line) for line in (runs / "stopped/metrics.jsonl").read_text().splitlines()]
    assert stopped.loss == next(line["loss"] for line in reversed(lines) if "loss" in line)
    assert stopped.validation_loss == [line["validation_loss"] for line in lines if "validation_loss" in line][-1]
    assert finished.evaluation is None
    assert damaged.state == "damaged"
    assert "config.json: not valid JSON" in (damaged.problem or "")


def test_a_run_that_is_named_itself_is_listed_once(runs: Path) -> None:
    assert [run.path for run in list_runs([runs / "stopped", runs / "stopped", runs])][1:2] == [runs / "stopped"]
    assert len(list_runs([runs / "stopped", runs])) == 3
    with pytest.raises(LeanDiTError, match="no such folder of runs"):
        list_runs([runs / "none"])


def test_a_run_in_training_is_known_by_its_lock_which_stays_free_for_others(runs: Path) -> None:
    with RunLock(runs / "stopped"):
        assert next(run for run in list_runs([runs]) if run.path.name == "stopped").state == "training"
    assert next(run for run in list_runs([runs]) if run.path.name == "stopped").state == "stopped"
    with RunLock(runs / "stopped"):
        pass


def test_the_newest_evaluation_is_shown(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "finished", run)
    (run / "evaluation").mkdir()
    for number, value in enumerate((1.0, 2.0)):
        path = run / f"evaluation/step-0000000{number}-x.json"
        path.write_text(json.dumps({"metrics": {"kid": {"values": {"KID": value}}}}))
        os.utime(path, (1e9 + number, 1e9 + number))
    (run / "evaluation/step-00000009-bad.json").write_text("[1]")
    assert list_runs([run])[0].evaluation == {"KID": 2.0}


def test_the_command(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(runs.parent)
    assert main(["runs"]) == 0
    table = capsys.readouterr().out
    for words in ("runs/finished", "dit 2 x 32, expert_race 2/4", "1/1", "2/20", "stopped", "damaged: runs/damaged"):
        assert words in table
    assert main(["runs", "--json", "runs/stopped"]) == 0
    [entry] = json.loads(capsys.readouterr().out)
    assert (entry["path"], entry["state"], entry["step"]) == ("runs/stopped", "stopped", 2)
    assert main(["runs", "runs/notes"]) == 0
    assert "No runs here" in capsys.readouterr().out
    monkeypatch.chdir(runs / "notes")
    assert main(["runs"]) == 2


def test_odd_numbers_and_files_are_passed_over(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "finished", run)
    (run / "evaluation").mkdir()
    (run / "evaluation/step-1.json").symlink_to("nowhere")
    (run / "evaluation/step-2.json").write_text(json.dumps({"metrics": {"kid": {"values": {"a": "x", "b": 2}}}}))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "loss": "nan", "validation_loss": "abc"}\n{"step": 3, "validation_loss": [1]}\n')
    [listed] = list_runs([run])
    assert listed.evaluation == {"b": 2.0}
    assert listed.loss != listed.loss
    assert isinstance(listed.validation_loss, float)
    assert main(["runs", str(run)]) == 0
    capsys.readouterr()
    assert main(["runs", str(run), "--json"]) == 0
    text = capsys.readouterr().out
    assert "NaN" not in text
    assert json.loads(text)[0]["loss"] is None


def test_a_run_that_may_not_be_read_is_listed_beside_the_others(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.stat

    def refuse(path: object, *arguments: object, **options: object) -> os.stat_result:
        if "stopped/" in os.fspath(path):  # type: ignore[arg-type]
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))  # type: ignore[arg-type]
        return original(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refuse)
    found = {run.path.name: run for run in list_runs([runs])}
    assert found["finished"].state == "finished"
    assert found["stopped"].state == "damaged"
    assert "cannot be read: Permission denied" in (found["stopped"].problem or "")


def test_listing_beside_a_start_costs_the_start_nothing(runs: Path) -> None:
    """A killed run leaves its holder's name in the lock; only such a lock is tried, and the start tries again."""
    lock = runs / "stopped/.lock"
    lock.write_text('{"pid": 1}')
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            list_runs([runs / "stopped"])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            with RunLock(runs / "stopped"):
                pass
            lock.write_text('{"pid": 1}')
    finally:
        stop.set()
        thread.join()
