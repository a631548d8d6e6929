"""Progress bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from leandit.cli.output import discard_output, say
from leandit.errors import printable
from leandit.training import Callback, RunView, StepReport

PLAIN_EVERY = 10.0  # seconds between lines without a terminal
_SMOOTHING = 0.95


class _Console(Console):
    """Stops printing if its reader is gone. rich would end the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        discard_output()


def _bar(console: Console, *columns: TextColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
    )


class TrainingProgress(Callback):
    """Shows steps, smoothed loss, images per second, MFU and ETA. Training continues if the reader is gone."""

    def __init__(self) -> None:
        self.console = _Console()
        self._bar = _bar(
            self.console,
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:.0f} images/s  MFU {task.fields[mfu]:.0%}"),
        )
        self._loss: float | None = None
        self._speed: float | None = None
        self._mfu: float | None = None
        self._printed = time.monotonic()
        self._first = 0

    def on_data(self, lines: Sequence[str]) -> None:
        for line in lines:
            say(line)

    def on_start(self, view: RunView) -> None:
        self._first = view.step
        self._started = time.monotonic()
        if self.console.is_terminal:
            self._task = self._bar.add_task(
                "training",
                total=view.config.train.steps,
                completed=view.step,
                loss=float("nan"),
                speed=0.0,
                mfu=0.0,
            )
            with self._unless_gone():
                self._bar.start()

    def on_step(self, view: RunView, report: StepReport) -> None:
        self._loss = _smooth(self._loss, report.loss)
        self._speed = _smooth(self._speed, report.images_per_second)
        self._mfu = _smooth(self._mfu, report.mfu)
        if self.console.is_terminal:
            with self._unless_gone():
                self._bar.update(self._task, completed=report.step, loss=self._loss, speed=self._speed, mfu=self._mfu)
        elif time.monotonic() - self._printed > PLAIN_EVERY or report.step == view.config.train.steps:
            self._printed = time.monotonic()
            step, total = report.step, view.config.train.steps
            eta = time_left(time.monotonic() - self._started, step - self._first, total - step)
            speed, mfu = f"{self._speed:.0f} images/s", f"MFU {self._mfu:.0%}"
            say(f"step {step}/{total}  loss {self._loss:.4f}  {speed}  {mfu}  ETA {eta}")

    def on_warning(self, view: RunView, message: str) -> None:
        with self._unless_gone():
            self.console.print(f"warning: {printable(message)}", style="yellow", markup=False, soft_wrap=True)

    def on_finish(self, view: RunView) -> None:
        self.on_end(view)
        if not view.stop.requested:
            say("Drawing samples ...")

    def on_end(self, view: RunView) -> None:
        if self.console.is_terminal:
            with self._unless_gone():
                self._bar.stop()

    @contextlib.contextmanager
    def _unless_gone(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.console.quiet = True
            discard_output()


class SamplingProgress:
    """Context manager and callback (done, total). It shows a bar on a terminal, and nothing otherwise."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bar = _bar(self.console)
        self._task = self._bar.add_task("sampling", total=None)

    def __enter__(self) -> SamplingProgress:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        if self.console.is_terminal:
            self._bar.update(self._task, completed=done, total=total)


def time_left(elapsed: float, done: int, to_go: int) -> str:
    """Return the time for `to_go` steps as minutes:seconds, if `done` steps took `elapsed` seconds."""
    left = elapsed / done * to_go
    return f"{int(left // 60)}:{int(left % 60):02d}"


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else _SMOOTHING * old + (1 - _SMOOTHING) * new
