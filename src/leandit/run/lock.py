"""A lock that allows one process per run folder. The kernel releases it when the process ends for any reason."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
import weakref
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from leandit.errors import LeanDiTError

LOCK_FILE = ".lock"
_TRIES, _PAUSE = 3, 0.02  # seconds
_log = logging.getLogger(__name__)


class RunLock:
    """Context manager: while it is held, no other process and no second RunLock can hold the same run folder.

    It is flock(2) on `<run>/.lock`. The file contains the holder (pid, host, since) as JSON and stays after release.
    If the holder dies, the lock is free at once. Forked processes do not inherit it. Raises LeanDiTError if another
    process holds the lock, with the name of the holder, or if the file system cannot lock. `check` notices that the
    file was deleted, which would admit a second process.
    """

    def __init__(self, run_folder: Path) -> None:
        self.path = run_folder / LOCK_FILE
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        if self._descriptor is not None:
            raise self._held()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._impossible(error) from None
        self._descriptor = self._take()
        _close_in_forks(self)
        return self

    def check(self, run_folder: Path) -> None:
        """Lock again if the file was deleted or replaced. Raises LeanDiTError if another process was faster.

        `run_folder` is where the folder is now.
        """
        self.path = run_folder / LOCK_FILE
        if self._descriptor is None or _is_open_at(self._descriptor, self.path):
            return
        fresh = self._take()
        os.close(self._descriptor)
        self._descriptor = fresh
        _log.warning("%s: was deleted or replaced during training; the run is locked again", self.path)

    def _take(self) -> int:
        tries = 0
        while True:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise self._impossible(error) from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another process may have deleted the file between opening and locking it.
                if _is_open_at(descriptor, self.path):
                    _write_holder(descriptor)
                    return descriptor
            except OSError as error:
                os.close(descriptor)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    # `leandit runs` holds the lock of a run that was killed for some microseconds.
                    if (tries := tries + 1) <= _TRIES:
                        time.sleep(_PAUSE)
                        continue
                    raise self._held() from None
                raise self._impossible(error) from None
            os.close(descriptor)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            # Empty the file but do not remove it: another process may have opened it in order to lock it.
            os.ftruncate(self._descriptor, 0)
            self._drop()

    def _drop(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _held(self) -> LeanDiTError:
        try:
            holder = json.loads(self.path.read_bytes())
            who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        return LeanDiTError(
            f"{self.path.parent}: this run is in use by {who}.\n"
            "Wait until it ends or stop it (its lock goes with it), or choose another run folder."
        )

    def _impossible(self, error: OSError) -> LeanDiTError:
        return LeanDiTError(
            f"{self.path}: the run folder cannot be locked: {error.strerror}.\n"
            "Choose a run folder that you may write to, on a file system with flock (a local disk has it)."
        )


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _write_holder(descriptor: int) -> None:
    since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)


def _close_in_forks(lock: RunLock) -> None:
    # Otherwise a forked data worker would keep the lock if its parent is killed.
    reference = weakref.ref(lock)

    def close() -> None:
        if (held := reference()) is not None:
            held._drop()

    os.register_at_fork(after_in_child=close)
