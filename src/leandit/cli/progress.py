"""Progress: a bar with ETA on a terminal, and a line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from leandit.cli.output import TALK, discard_output, status
from leandit.errors import printable
from leandit.training import Callback, RunView, StepReport

PLAIN_EVERY = 5.0  # seconds between lines without a terminal
_SMOOTHING = 0.95
# Columns of a terminal that show everything; a narrower one shows steps, loss and ETA.
_WIDE = 90


class _Console(Console):
    """Stops printing if its reader is gone. rich would end the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        discard_output()


class Bars:
    """Any number of works in progress, by name: bars on a terminal, lines elsewhere, nothing with -q.

    `about` is a text beside the numbers. A line is printed for the first call after PLAIN_EVERY seconds without one,
    and for the end of a work that had lines before, or if its end is `always` told.
    """

    def __init__(self, console: Console, file: IO[str] | None = None) -> None:
        self.console = console
        self.on_terminal = console.is_terminal and not TALK.quiet
        self._file = file
        self._live: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._first: dict[str, tuple[int, float]] = {}
        self._spoken: set[str] = set()
        self._printed = time.monotonic()

    def show(self, name: str, done: int, total: int, about: Callable[[], str] = str, always: bool = False) -> None:
        """Say that `done` of `total` steps of the work `name` are done."""
        now = time.monotonic()
        first, started = self._first.setdefault(name, (done, now))
        if self.on_terminal:
            self._draw(name, done, total, about())
            if done == total and not always and self._live is not None:
                self._live.remove_task(self._tasks.pop(name))
        elif now - self._printed > PLAIN_EVERY or (done == total and (always or name in self._spoken)):
            self._printed = now
            self._spoken.add(name)
            left = f"ETA {time_left(now - started, done - first, total - done)}" if done > first else ""
            status("  ".join(part for part in (f"{name} {done}/{total}", about(), left) if part), self._file)
        if done == total:  # the same work may begin anew
            self._first.pop(name)
            self._spoken.discard(name)

    def _draw(self, name: str, done: int, total: int, about: str) -> None:
        with self.unless_gone():
            if self._live is None:
                self._live = self._start()
            if name not in self._tasks:
                self._tasks[name] = self._live.add_task(name, total=total, about=about)
            self._live.update(self._tasks[name], completed=done, total=total, about=about)

    def _start(self) -> Progress:
        wide = self.console.width >= _WIDE
        bar = [BarColumn(bar_width=None if wide else 8)] if self.console.width >= 50 else []
        columns = [TextColumn("{task.description}"), *bar, MofNCompleteColumn(), TextColumn("{task.fields[about]}")]
        columns += [TextColumn("ETA"), TimeRemainingColumn(compact=True)]
        live = Progress(*columns, console=self.console, expand=wide)
        live.start()
        return live

    def stop(self) -> None:
        """Remove the bars; whatever is printed next is not mixed with them."""
        if self._live is not None:
            with self.unless_gone():
                self._live.stop()
        self._live = None
        self._tasks.clear()
        self._first.clear()
        self._spoken.clear()

    @contextlib.contextmanager
    def unless_gone(self) -> Iterator[None]:
        """If the reader of the console is gone, print nothing more to it."""
        try:
            yield
        except OSError:
            self.console.quiet = True
            discard_output()


class TrainingProgress(Callback):
    """Shows steps, smoothed loss, images per second, MFU and ETA. Training continues if the reader is gone."""

    def __init__(self) -> None:
        self.console = _Console()
        self._bars = Bars(self.console)
        self._loss: float | None = None
        self._speed: float | None = None
        self._mfu: float | None = None

    def on_data(self, lines: Sequence[str]) -> None:
        for line in lines:
            status(line)

    def on_start(self, view: RunView) -> None:
        self._bars.show("step", view.step, view.config.train.steps)

    def on_step(self, view: RunView, report: StepReport) -> None:
        self._loss = _smooth(self._loss, report.loss)
        self._speed = _smooth(self._speed, report.images_per_second)
        self._mfu = _smooth(self._mfu, report.mfu)
        self._bars.show("step", report.step, view.config.train.steps, self._about, always=True)

    def _about(self) -> str:
        if self._bars.on_terminal and self.console.width < _WIDE:
            return f"loss {self._loss:.4f}"
        return f"loss {self._loss:.4f}  {self._speed:.0f} images/s  MFU {self._mfu:.0%}"

    def on_drawing(self, view: RunView, what: str, done: int, total: int) -> None:
        self._bars.show(f"drawing {what}", done, total)

    def on_warning(self, view: RunView, message: str) -> None:
        with self._bars.unless_gone():
            self.console.print(f"warning: {printable(message)}", style="yellow", markup=False, soft_wrap=True)

    def on_finish(self, view: RunView) -> None:
        self._bars.stop()
        if not view.stop.requested:
            status("Drawing samples ...")

    def on_end(self, view: RunView) -> None:
        self._bars.stop()


class SamplingProgress:
    """Context manager and callback (done, total) of sampler steps, on stderr."""

    def __init__(self, name: str = "drawing") -> None:
        self._name = name
        console = _Console(stderr=True)
        self.bars = Bars(console, console.file)

    def __enter__(self) -> SamplingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, done: int, total: int) -> None:
        self.bars.show(self._name, done, total)
        if done == total:
            self.bars.stop()


def time_left(elapsed: float, done: int, to_go: int) -> str:
    """Return the time for `to_go` steps as minutes:seconds, if `done` steps took `elapsed` seconds."""
    left = elapsed / done * to_go
    return f"{int(left // 60)}:{int(left % 60):02d}"


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else _SMOOTHING * old + (1 - _SMOOTHING) * new
