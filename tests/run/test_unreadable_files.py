"""Files of a checkpoint that exist and cannot be read: the error names them, and nothing is set aside."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from leandit.errors import LeanDiTError
from leandit.run import manifest
from leandit.run.checkpoint import find_newest, list_steps, open_checkpoint
from leandit.run.manifest import DamagedCheckpoint
from leandit.run.store import CheckpointStore

FILES = ("manifest.json", "state.json", "config.json", "model.safetensors")
CALLS = ("open", "stat", "read_bytes")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = CheckpointStore(tmp_path / "checkpoints")
    for step in (0, 5):
        store.publish(step, {"model": {"weight": torch.ones(3)}}, {"step": step}, {"model": {}})
    return tmp_path / "checkpoints"


def fail(monkeypatch: pytest.MonkeyPatch, call: str, name: str, error: OSError) -> list[str]:
    """Let a method of Path raise for files of this name, and return the list that each failure is added to."""
    original: Callable[..., Any] = getattr(Path, call)
    failures: list[str] = []

    def failing(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == name:
            failures.append(str(self))
            raise error
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, call, failing)
    return failures


def mistake_in(checkpoint: Path) -> LeanDiTError | None:
    try:
        open_checkpoint(checkpoint, full=True)
    except LeanDiTError as error:
        return error
    return None


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("error", [OSError(errno.EIO, os.strerror(errno.EIO)), OSError("the disk is gone")], ids=str)
def test_a_file_that_cannot_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: str, error: OSError
) -> None:
    before = sorted(folder.rglob("*"))
    with monkeypatch.context() as patch:
        failures = fail(patch, call, name, error)
        told = mistake_in(folder / "step-00000005")
    assert sorted(folder.rglob("*")) == before
    if not failures:
        return
    assert told is not None, f"{failures} failed, and nobody was told"
    assert not isinstance(told, DamagedCheckpoint)
    # The look for a manifest belongs to the folder.
    named = "step-00000005" if (name, call) == ("manifest.json", "stat") else name
    assert f"{named}: cannot be read: {error.strerror or error}." in str(told)
    assert "Nothing was changed" in str(told)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_vanishes_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: str) -> None:
    with monkeypatch.context() as patch:
        failures = fail(patch, call, name, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
        told = mistake_in(folder / "step-00000005")
    if failures:
        assert isinstance(told, DamagedCheckpoint)
        assert f"{name}: missing" in str(told) or f"no {name}" in str(told)


def test_the_checkpoint_of_step_0_is_one(folder: Path) -> None:
    assert open_checkpoint(folder / "step-00000000", full=True).step == 0


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7])
def test_a_foreign_folder_is_described_by_its_first_five_names(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"file{number}").touch()
    listed = ", ".join(f"file{number}" for number in range(min(count, 5)))
    found = f"It contains {listed}{', ...' if count > 5 else ''}." if count else "It is empty."
    with pytest.raises(DamagedCheckpoint, match=re.escape(f"no manifest.json in it. {found}\n")):
        open_checkpoint(tmp_path)


def test_the_newest_checkpoint_is_proposed_for_the_folder_above(folder: Path) -> None:
    with pytest.raises(DamagedCheckpoint, match=r"Did you mean .*step-00000005\?"):
        open_checkpoint(folder)


def test_a_damaged_checkpoint_that_cannot_be_renamed_stays_and_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "step-00000005" / "state.json").write_text("{}")

    def refuse(*paths: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(LeanDiTError, match=r"could not be renamed to step-00000005\.corrupt-1: Read-only file system"):
        CheckpointStore(folder).newest()
    assert (folder / "step-00000005").is_dir()
    assert find_newest(folder) is not None


def test_an_old_checkpoint_that_cannot_be_deleted_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    rename = os.rename

    def refuse(old: Path, new: Path) -> None:
        if "step-00000001" in str(old) and ".tmp-" not in str(old):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        rename(old, new)

    monkeypatch.setattr(os, "rename", refuse)
    for step in (1, 2, 3):
        store.publish(step, {"model": {"weight": torch.ones(3)}}, {"step": step}, {"model": {}})
    assert "step-00000001 could not be deleted: " in caplog.text
    assert store.steps() == [1, 2, 3]


def test_of_two_places_with_checkpoints_the_runs_own_is_proposed(folder: Path) -> None:
    """A folder that has checkpoints/ and, beside it, checkpoints of its own that somebody copied there."""
    above = folder.parent
    (folder / "step-00000000").rename(above / "step-00000000")
    (folder / "step-00000005").rename(folder / "step-00000004")
    (above / "step-00000000").rename(above / "step-00000009")
    with pytest.raises(LeanDiTError, match=re.escape(f"Did you mean {folder / 'step-00000004'}?")):
        open_checkpoint(above)


def test_a_folder_of_checkpoints_that_is_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(LeanDiTError, match="checkpoints: cannot be read: Not a directory"):
        list_steps(tmp_path / "checkpoints")


def test_remains_that_cannot_be_deleted_stop_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".tmp-remains").mkdir()
    names = {entry.name for entry in folder.iterdir()}

    def refuse(path: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "rmdir", refuse)
    CheckpointStore(folder, keep=9).publish(6, {"model": {"weight": torch.ones(3)}}, {"step": 6}, {"model": {}})
    assert names < {entry.name for entry in folder.iterdir()}
    assert list_steps(folder) == [0, 5, 6]


@pytest.mark.parametrize("size", [-1, 2**63, 2**63 + 1, 2**70, 1.0, True, "7"])
def test_sizes_that_no_file_has_are_refused(size: object) -> None:
    assert manifest._file_record("state.json", {"size": 2**63 - 1, "sha256": "0" * 64}).size == 2**63 - 1
    with pytest.raises(ValueError, match=r"record of 'state.json'"):
        manifest._file_record("state.json", {"size": size, "sha256": "0" * 64})
