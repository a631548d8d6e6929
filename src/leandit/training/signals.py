"""Signals as requests between two steps: to stop after a checkpoint, or to save one and go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stopped(Exception):
    """Ends work between two steps, such as drawing, after a signal. The trainer catches it."""


class StopRequest:
    """Context manager that records signals instead of ending the process.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal was closed) request a stop; SIGUSR1, which batch systems send
    before a time limit, requests a checkpoint after the current step. A second Ctrl-C raises KeyboardInterrupt, but
    never inside `shielded`: there the first one's checkpoint is still to be saved.

    `exit_code` is 128 + the number of the first signal to stop, as in shells: 130, 143 or 129. It is 0 without one.
    A SIGHUP that is ignored already, as under nohup, stays ignored. Outside the main thread Python allows no signal
    handlers, so it records nothing.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self.save_requested = False
        self._shielded = False
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.exit_code != 0

    def check(self) -> None:
        """Raise Stopped if a signal has arrived. Call it during long work between two steps."""
        if self.requested:
            raise Stopped

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Let no signal interrupt the work inside."""
        before, self._shielded = self._shielded, True
        try:
            yield
        finally:
            self._shielded = before

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a second Ctrl-C interrupt the work inside, such as drawing, within `shielded`."""
        before, self._shielded = self._shielded, False
        try:
            yield
        finally:
            self._shielded = before

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.save_requested = True
        elif not self.requested:
            self.exit_code = 128 + number
        elif number == signal.SIGINT and not self._shielded:
            raise KeyboardInterrupt
