"""Whatever interrupts a training: finished steps are saved, and never into the wrong folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run import store
from leandit.run.checkpoint import find_newest
from leandit.run.lock import RunLock
from leandit.training import Callback, RunView, StepReport, run_training

SMALL = ("model.dim=16", "model.depth=1", "model.moe.num_experts=2", "model.moe.k=1", "train.batch_size=2",
         "train.checkpoint_every=100", "train.log_every=1", "train.steps=6")  # fmt: skip


def train(out: Path, *callbacks: Callback, overrides: tuple[str, ...] = (), resume: bool = False) -> int:
    return run_training(run_config("tiny", [*SMALL, *overrides]), out, resume, callbacks)


def newest_step(run: Path) -> int:
    newest = find_newest(run / "checkpoints")
    return newest.step if newest else 0


class At(Callback):
    """Acts once, in one hook at one step."""

    def __init__(self, hook: str, step: int, act: Callable[[], object]) -> None:
        self.hook, self.step, self.act = hook, step, act
        self.last = 0

    def _maybe(self, hook: str, step: int) -> None:
        self.last = step
        if (hook, step) == (self.hook, self.step):
            self.act()

    def on_step(self, run: RunView, report: StepReport) -> None:
        self._maybe("on_step", report.step)

    def on_metrics(self, run: RunView, step: int, values: Mapping[str, Any]) -> None:
        self._maybe("on_metrics", step)

    def on_warning(self, run: RunView, message: str) -> None:
        self._maybe("on_warning", run.step)


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


ERRORS = (
    ValueError("boom"),
    LeanDiTError("boom"),
    KeyboardInterrupt(),
    SystemExit(3),
    OSError(28, "full"),
)


@pytest.mark.parametrize("hook", ["on_step", "on_metrics", "on_warning"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_callback_raises_the_finished_steps_are_saved_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, error: BaseException
) -> None:
    monkeypatch.setattr("leandit.training.tasks.denoise.DenoiseTask.watch", lambda self, numbers: ["an expert starves"])
    with pytest.raises(type(error)) as caught:
        train(tmp_path / "run", At(hook, 3, raising(error)))
    assert caught.value is error
    assert newest_step(tmp_path / "run") == 3
    assert train(tmp_path / "run", resume=True) == 0


def test_the_error_of_a_callback_is_not_hidden_by_a_save_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "write_checkpoint", lambda *_: raising(OSError(28, "No space left on device"))())
    with pytest.raises(ValueError, match="boom"):
        train(tmp_path / "run", At("on_step", 2, raising(ValueError("boom"))))
    assert "step 2 could not be saved" in caplog.text


def test_every_callback_ends_although_one_of_them_raises(tmp_path: Path) -> None:
    ended: list[int] = []

    class End(Callback):
        def __init__(self, number: int) -> None:
            self.number = number

        def on_end(self, run: RunView) -> None:
            ended.append(self.number)
            if self.number == 1:
                raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        train(tmp_path / "run", End(1), End(2), End(3))
    assert ended == [1, 2, 3]


def test_sigusr1_saves_and_goes_on_and_sighup_saves_and_stops(tmp_path: Path) -> None:
    seen: list[int] = []
    usr1 = At("on_metrics", 2, lambda: signal.raise_signal(signal.SIGUSR1))
    look = At("on_step", 3, lambda: seen.append(newest_step(tmp_path / "run")))
    hup = At("on_step", 4, lambda: signal.raise_signal(signal.SIGHUP))
    assert train(tmp_path / "run", usr1, look, hup) == 128 + signal.SIGHUP
    assert seen == [2]
    assert newest_step(tmp_path / "run") == 4
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000002", "step-00000004"]


PLACES = ("forward", "on_metrics", "on_step", "publish", "loader")
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from(NUMBERS), st.sampled_from(PLACES), st.integers(1, 4)), min_size=1, max_size=4)
)
def test_signals_in_any_number_and_at_any_place_lose_no_step(
    tmp_path_factory: pytest.TempPathFactory, signals: list[tuple[signal.Signals, str, int]]
) -> None:
    run, finished = tmp_path_factory.mktemp("signals") / "run", [0]
    left = list(signals)

    def arrive(place: str, step: int) -> None:
        for each in [each for each in left if each[1:] == (place, step)]:
            left.remove(each)
            signal.raise_signal(each[0])

    class Watch(Callback):
        def on_metrics(self, run: RunView, step: int, values: Mapping[str, Any]) -> None:
            finished[0] = step
            arrive("on_metrics", step)

        def on_step(self, run: RunView, report: StepReport) -> None:
            arrive("on_step", report.step)

    with pytest.MonkeyPatch.context() as patch:
        around(patch, "leandit.training.tasks.denoise.DenoiseTask.forward", lambda: arrive("forward", finished[0] + 1))
        around(patch, "leandit.run.store.CheckpointStore.publish", lambda: arrive("publish", finished[0]))
        around(patch, "leandit.training.trainer.Trainer._train_step", lambda: arrive("loader", finished[0] + 1))
        try:
            train(run, Watch(), overrides=("train.steps=5",))
        except KeyboardInterrupt:
            assert len(signals) > 1, "one Ctrl-C ends after a checkpoint"
    assert newest_step(run) == finished[0] >= 1


def around(patch: pytest.MonkeyPatch, name: str, before: Callable[[], None]) -> None:
    from pkgutil import resolve_name

    original = resolve_name(name)

    def call(*args: Any, **options: Any) -> Any:
        before()
        return original(*args, **options)

    patch.setattr(name, call)


MOVES: dict[str, tuple[Callable[[Path], object], str]] = {
    "moved": (lambda run: run.rename(run.with_name("elsewhere")), r"was moved to .*elsewhere during training"),
    "moved and made anew": (
        lambda run: (run.rename(run.with_name("elsewhere")), run.mkdir()), r"was moved to .*elsewhere during training"),
    "parent moved": (
        lambda run: run.parent.rename(run.parents[1] / "far"), r"was moved to .*far/run during training"),
    "deleted": (lambda run: shutil.rmtree(run), "was deleted or replaced during training"),
    "replaced by a copy": (
        lambda run: (shutil.copytree(run, run.with_name("c")), shutil.rmtree(run), run.with_name("c").rename(run)),
        "was deleted or replaced during training"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MOVES)
@pytest.mark.parametrize("every", [2, 100])
def test_a_folder_that_is_moved_or_deleted_is_noticed_and_no_ghost_is_written(
    tmp_path: Path, kind: str, every: int
) -> None:
    act, message = MOVES[kind]
    run = tmp_path / "runs" / "run"
    overrides = (f"train.checkpoint_every={every}", "train.sample_every=4")
    with pytest.raises(LeanDiTError, match=message):
        train(run, At("on_step", 3, lambda: act(run)), overrides=overrides)
    moved = [path.parent for path in tmp_path.rglob("config.json") if path.parent.parent.name != "checkpoints"]
    if "moved" in kind:
        assert len(moved) == 1
        assert newest_step(moved[0]) == 4, "the next step notices it and is saved where the folder is now"
        assert train(moved[0], overrides=overrides, resume=True) == 0
        assert not run.exists() or not list(run.iterdir())
    elif kind == "deleted":
        assert not run.exists()
    else:
        assert newest_step(run) == (2 if every == 2 else 0)
        assert not (run / "grids").exists()


def test_a_deleted_lock_is_noticed_and_taken_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "run"
    held: list[int] = []

    def look() -> None:
        with pytest.raises(LeanDiTError, match=f"in use by process {os.getpid()}"):
            RunLock(run).__enter__()
        held.append(json.loads((run / ".lock").read_text())["pid"])

    every = ("train.checkpoint_every=1",)
    assert train(run, At("on_step", 2, (run / ".lock").unlink), At("on_step", 4, look), overrides=every) == 0
    assert held == [os.getpid()]
    assert ".lock: was deleted or replaced during training" in caplog.text


def test_a_second_writer_that_a_deleted_lock_admitted_is_noticed_before_anything_is_saved(tmp_path: Path) -> None:
    run, second = tmp_path / "run", RunLock(tmp_path / "run")

    def admit() -> None:
        (run / ".lock").unlink()
        second.__enter__()

    with pytest.raises(LeanDiTError, match=f"in use by process {os.getpid()}"):
        train(run, At("on_step", 3, admit), overrides=("train.checkpoint_every=2",))
    second.__exit__(None, None, None)
    assert newest_step(run) == 2


def test_nothing_of_a_checkpoint_is_published_before_its_metrics_and_its_config_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, events = tmp_path / "run", []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def synced(descriptor: int) -> None:
        events.append("sync " + os.readlink(f"/proc/self/fd/{descriptor}").split("/")[-1])
        fsync(descriptor)

    def renamed(how: Callable[..., None]) -> Callable[..., None]:
        def call(source: Path, target: Path) -> None:
            events.append(f"rename {target.name}")
            how(source, target)

        return call

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("os.rename", renamed(rename))
    monkeypatch.setattr("os.replace", renamed(replace))
    train(run, overrides=("train.steps=2", "train.checkpoint_every=1"))
    config = events.index("rename config.json")
    assert events[config - 1] == "sync .config.json.tmp"
    assert "sync run" in events[config:]
    first, second = (events.index(f"rename step-0000000{step}") for step in (1, 2))
    assert config < events.index("sync metrics.jsonl") < first
    assert "sync metrics.jsonl" in events[first:second]
