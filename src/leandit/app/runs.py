"""The runs that a page draws from, each with one thread that draws: a model serves one request at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from leandit.errors import LeanDiTError
from leandit.models import BackboneConfig
from leandit.moe.budget import Calibration, has_thresholds
from leandit.sampling import LoadedRun, calibrate, load


class ServedRun:
    """A loaded run, its name on the page, and the thread in which all of its drawings are made, one after another."""

    def __init__(self, name: str, run: LoadedRun) -> None:
        self.name = name
        self.run = run
        self.closing = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"draw {name}")

    @property
    def config(self) -> BackboneConfig:
        """The model's config."""
        return self.run.model.config

    @property
    def choices(self) -> list[str]:
        """The classes by name, or by number where they have none; empty for a model that is not asked for a class."""
        count = 0 if self.run.text is not None else self.config.num_classes or 0
        named = len(self.run.class_names) == count
        return [*self.run.class_names] if named else [str(label) for label in range(count)]

    @property
    def has_budget(self) -> bool:
        """Whether a threshold decides how many experts a token gets, so that a page can shift it."""
        return has_thresholds(self.run.model)

    @cached_property
    def calibration(self) -> Calibration:
        """The scores that thresholds for other budgets are read from; recorded when it is first asked for."""
        return calibrate(self.run)

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Run a function without arguments in this run's thread, after those that were submitted before it."""
        return self._thread.submit(work)

    def close(self) -> None:
        """End the drawing at its next step, and take no more."""
        self.closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)


def open_runs(folders: Sequence[str | Path]) -> dict[str, ServedRun]:
    """Load the runs, by the names that the page shows; a run on latents, which are no pictures, is a LeanDiTError."""
    served: dict[str, ServedRun] = {}
    for folder in folders:
        run = load(folder)
        if run.codec.no_pictures is not None:
            raise LeanDiTError(
                f"{run.path}: the run learned latents, which are no pictures, so a page cannot show them; "
                "`leandit sample` writes them to samples.npz"
            )
        name = _free_name(Path(folder).resolve().name, served)
        served[name] = ServedRun(name, run)
    return served


def _free_name(name: str, taken: dict[str, ServedRun]) -> str:
    names = [name, *(f"{name} ({number})" for number in range(2, len(taken) + 2))]
    return next(free for free in names if free not in taken)
