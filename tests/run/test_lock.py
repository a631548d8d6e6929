"""The run lock: one holder at a time, free when its process ends, not kept by forked workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from leandit.errors import LeanDiTError
from leandit.run.lock import RunLock

HOLD = """
import os, sys; from pathlib import Path; from leandit.run.lock import RunLock
with RunLock(Path(sys.argv[1])):
    worker = os.fork() if sys.argv[2] == "fork" else 1
    # Printed by the worker itself where there is one: by then it has run what follows a fork.
    if worker == 0 or sys.argv[2] == "plain":
        print(os.getpid(), flush=True)
    sys.stdin.read()
"""


def hold(folder: Path, mode: str) -> tuple[subprocess.Popen[str], int]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    return child, int(child.stdout.readline())


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def test_a_second_process_is_told_who_holds_the_run(tmp_path: Path) -> None:
    child, _ = hold(tmp_path, "plain")
    try:
        with pytest.raises(LeanDiTError, match=rf"process {child.pid} on {socket.gethostname()} since 20\d\d-"):
            RunLock(tmp_path).__enter__()
    finally:
        end(child)


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    child, _ = hold(tmp_path, "plain")
    end(child)
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == child.pid
    with RunLock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_forked_worker_that_outlives_its_parent_does_not_hold_the_lock(tmp_path: Path) -> None:
    child, worker = hold(tmp_path, "fork")
    child.kill()
    child.wait()
    try:
        os.kill(worker, 0)
        with RunLock(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        child.communicate()


def test_a_forked_worker_that_ends_leaves_its_parents_lock(tmp_path: Path) -> None:
    with RunLock(tmp_path) as lock:
        pid = os.fork()
        if pid == 0:
            lock.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(pid, 0)
        with pytest.raises(LeanDiTError, match=f"process {os.getpid()}"):
            RunLock(tmp_path).__enter__()


def test_the_same_process_cannot_hold_it_twice_but_again_after_release(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "new" / "run")
    for _ in range(2):
        with lock:
            for second in (lock, RunLock(tmp_path / "new" / "run")):
                with pytest.raises(LeanDiTError, match=f"process {os.getpid()}"):
                    second.__enter__()
        assert (tmp_path / "new" / "run" / ".lock").read_text() == ""


def test_the_lock_is_released_by_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RunLock(tmp_path):
        raise KeyError
    with RunLock(tmp_path):
        pass


def test_a_place_without_a_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LeanDiTError, match="cannot be locked"):
        RunLock(tmp_path / "file").__enter__()
