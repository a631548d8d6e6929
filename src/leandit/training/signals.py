"""Ctrl-C and SIGTERM as a request to stop after the current step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stopped(Exception):
    """Ends work between two steps, such as drawing, after a signal. The trainer catches it."""


class StopRequest:
    """Context manager that records SIGINT and SIGTERM instead of ending the process. A second Ctrl-C ends it at once.

    `exit_code` is 128 + the signal's number, as in shells: 130 or 143. It is 0 without a signal. Outside the main
    thread Python allows no signal handlers, so it records nothing.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.exit_code != 0

    def check(self) -> None:
        """Raise Stopped if a signal has arrived. Call it during long work between two steps."""
        if self.requested:
            raise Stopped

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.exit_code = 128 + number
