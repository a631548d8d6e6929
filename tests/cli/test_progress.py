"""Progress: what is said when, with a clock of its own, on terminals of several widths and without one."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from leandit.cli.output import TALK
from leandit.cli.progress import PLAIN_EVERY, Bars, SamplingProgress, TrainingProgress
from leandit.training import StepReport


class Clock:
    """Stands in for time.monotonic."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("leandit.cli.progress.time.monotonic", clock)
    return clock


@pytest.fixture
def quiet() -> Any:
    TALK.quiet = True
    yield
    TALK.quiet = False


def plain(file: io.StringIO) -> Bars:
    return Bars(Console(file=file, force_terminal=False), file)


def terminal(width: int) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=width, color_system=None), file


def view(steps: int, step: int = 0) -> Any:
    config = SimpleNamespace(train=SimpleNamespace(steps=steps))
    return SimpleNamespace(config=config, step=step, stop=SimpleNamespace(requested=False))


def test_a_line_at_least_every_few_seconds_with_the_time_that_is_left(clock: Clock) -> None:
    file, said = io.StringIO(), [clock.now]
    bars = plain(file)
    for done in range(101):
        before = file.getvalue()
        bars.show("drawing", done, 100)
        if file.getvalue() != before:
            said.append(clock.now)
        clock.now += 1.5
    assert max(after - before for before, after in pairwise(said)) <= PLAIN_EVERY + 1.5
    lines = file.getvalue().splitlines()
    assert lines[0] == "drawing 4/100  ETA 2:24"
    assert lines[-1] == "drawing 100/100  ETA 0:00"


def test_a_short_work_says_nothing_unless_its_end_is_always_told(clock: Clock) -> None:
    file = io.StringIO()
    bars = plain(file)
    bars.show("drawing", 0, 2)
    bars.show("drawing", 2, 2)
    assert file.getvalue() == ""
    bars.show("step", 1, 2, always=True)
    bars.show("step", 2, 2, always=True)
    assert file.getvalue() == "step 2/2  ETA 0:00\n"


def test_a_second_set_of_pictures_begins_anew(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = SamplingProgress("pictures")
    progress.bars = plain(file := io.StringIO())
    for done in (90, 100):  # 90 are there from before, and took no time
        progress(done, 100)
        clock.now += 10
    progress(0, 50)
    clock.now += 10
    progress(25, 50)
    lines = file.getvalue().splitlines()
    assert lines == ["pictures 100/100  ETA 0:00", "pictures 0/50", "pictures 25/50  ETA 0:10"]


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_bar_has_no_nan_and_keeps_step_loss_and_eta(width: int) -> None:
    progress = TrainingProgress()
    console, file = terminal(width)
    progress.console = console
    progress._bars = Bars(console)
    run = view(1100)
    progress.on_start(run)
    for step in (1, 2, 3):
        progress.on_step(run, StepReport(step, 1.5, 80.0, 0.02))
    progress._bars._live.refresh()  # type: ignore[union-attr]
    progress.on_end(run)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", file.getvalue())
    assert "nan" not in shown
    [last] = [line for line in shown.splitlines() if "3/1100" in line][-1:]
    assert "loss 1.5000" in last
    assert "ETA" in last
    assert "…" not in last
    assert len(last) <= width
    assert ("80 images/s" in last) is (width == 160)


def test_drawings_in_a_training_have_bars_of_their_own(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = TrainingProgress()
    run = view(10, step=10)
    progress.on_finish(run)
    for done in (0, 1, 2):
        progress.on_drawing(run, "samples", done, 2)
        clock.now += 6
    assert capsys.readouterr().out.splitlines() == [
        "Drawing samples ...",
        "drawing samples 1/2  ETA 0:06",
        "drawing samples 2/2  ETA 0:00",
    ]


def test_quiet_says_nothing(clock: Clock, quiet: None, capsys: pytest.CaptureFixture[str]) -> None:
    for bars in (plain(file := io.StringIO()), Bars(terminal(80)[0])):
        for done in range(11):
            bars.show("drawing", done, 10)
            clock.now += 10
    assert file.getvalue() == ""
    progress = TrainingProgress()
    progress.on_data(["data.source: 3 pictures"])
    progress.on_finish(view(3))
    assert capsys.readouterr().out == ""


def test_each_drawing_of_a_kind_has_its_own_eta(clock: Clock) -> None:
    file = io.StringIO()
    bars = plain(file), Bars(terminal(120)[0])
    for _ in range(2):
        clock.now += 1000
        for done in range(5):
            for each in bars:
                each.show("drawing a grid", done, 4)
            clock.now += 10
    assert file.getvalue().splitlines() == ["drawing a grid 0/4", *_quarters(), "drawing a grid 0/4", *_quarters()]
    assert bars[1]._tasks == {}
    bars[1].stop()


def _quarters() -> list[str]:
    return [f"drawing a grid {done}/4  ETA 0:{10 * (4 - done):02d}" for done in (1, 2, 3, 4)]
