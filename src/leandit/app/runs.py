"""The runs of a page. Each has one thread for drawing, so a model handles one request at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from leandit.errors import LeanDiTError
from leandit.models import BackboneConfig
from leandit.moe.budget import Calibration, can_change
from leandit.sampling import LoadedRun, calibrate, load


class ServedRun:
    """A loaded run, its name on the page, and the thread that makes its drawings one after another."""

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
        """The classes by name, or by number if they have no names. Empty for a model without classes."""
        count = 0 if self.run.text is not None else self.config.num_classes or 0
        named = len(self.run.class_names) == count
        return [*self.run.class_names] if named else [str(label) for label in range(count)]

    @property
    def has_budget(self) -> bool:
        """Whether the number of experts per token can be changed."""
        return can_change(self.run.model)

    @cached_property
    def calibration(self) -> Calibration:
        """The scores from which thresholds for other budgets are computed. They are recorded on first access."""
        return calibrate(self.run)

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Run a function in this run's thread, after all functions that were submitted before."""
        return self._thread.submit(work)

    def close(self) -> None:
        """End the current drawing at its next step, and accept no more."""
        self.closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)


def open_runs(folders: Sequence[str | Path], device: str = "auto", precision: str = "fp32") -> dict[str, ServedRun]:
    """Load the runs, by their names on the page. Raises LeanDiTError for a run on latents, which are not pictures."""
    served: dict[str, ServedRun] = {}
    for folder in folders:
        run = load(folder, device=device, precision=precision)
        if run.codec.no_pictures is not None:
            raise LeanDiTError(
                f"{run.path}: the run learned latents, which are not pictures, so a page cannot show them; "
                "`leandit sample` writes them to samples.npz"
            )
        name = Path(folder).resolve().name
        names = [name, *(f"{name} ({number})" for number in range(2, len(served) + 2))]
        free = next(one for one in names if one not in served)
        served[free] = ServedRun(free, run)
    return served
