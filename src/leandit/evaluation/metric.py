"""What a metric is: it says which pictures it wants drawn, and turns them into numbers that say how they were made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from jaxtyping import UInt8
from torch import Tensor

from leandit.data import Source
from leandit.run.conditioner import Wanted
from leandit.sampling import LoadedRun

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One evaluation: a run, how many pictures to draw of it, and what to hold them against."""

    run: LoadedRun
    num_samples: int
    # Real pictures; by default the run's own training data.
    reference: Source
    # Where weights of extractors, detectors and judges lie, by name: the command's --weights-from NAME=PATH.
    paths: dict[str, Path] = field(default_factory=dict)
    batch_size: int = 64
    # Whether weights without a path may be fetched from where they are published; nothing is downloaded otherwise.
    download: bool = False
    # What the metrics of one evaluation share, such as features of the same pictures.
    cache: dict[str, Any] = field(default_factory=dict)

    def kept(self, key: str, build: Callable[[], T]) -> T:
        """Return what is kept under `key`, which `build` makes when it is first asked for."""
        if key not in self.cache:
            self.cache[key] = build()
        value: T = self.cache[key]
        return value


@dataclass(frozen=True)
class Plan:
    """The pictures that a metric wants: what each shows, and its seed. Metrics with equal plans share the drawing."""

    wanted: Wanted
    seeds: Sequence[int]


@dataclass(frozen=True)
class Drawn:
    """The pictures of a plan, 0..255, in its order."""

    pictures: UInt8[Tensor, "samples height width channels"]
    plan: Plan


@dataclass(frozen=True)
class Measurement:
    """Numbers by name, such as "KID-EffNetLite0", and everything that they depend on beside the run and its sampling.

    `made_of` is JSON: extractor with the hash of its weights, resolution and resampling, the reference's hash and so
    on. Two measurements that differ in any of it are not comparable.
    """

    values: dict[str, float]
    made_of: dict[str, Any]


class Metric(ABC):
    """A metric of `leandit evaluate`; each is an entry of the table in `leandit.evaluation.registry`."""

    # As typed on the command line.
    name: ClassVar[str]

    @abstractmethod
    def plan(self, job: Job) -> Plan | None:
        """Return what to draw, or None for a metric that needs no pictures; raise LeanDiTError if it makes no sense.

        Raised before anything is drawn: too few samples (with the number needed), a class model where prompts are
        needed, weights that are not there.
        """

    @abstractmethod
    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        """Return the numbers."""
