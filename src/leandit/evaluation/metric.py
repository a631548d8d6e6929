"""A metric: it says which pictures to draw, and turns them into numbers with everything that they depend on."""

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
    """One evaluation: a run, the number of pictures to draw, and the real pictures to compare them with."""

    run: LoadedRun
    num_samples: int
    reference: Source
    """Real pictures; by default the run's training data."""
    paths: dict[str, Path] = field(default_factory=dict)
    """Paths of the weights of extractors, detectors and judges, by name: --weights-from NAME=PATH."""
    batch_size: int = 64
    download: bool = False
    """Whether weights without a path may be downloaded from their publisher; otherwise nothing is downloaded."""
    cache: dict[str, Any] = field(default_factory=dict)
    """What the metrics of one evaluation share, such as the features of the same pictures."""

    def kept(self, key: str, build: Callable[[], T]) -> T:
        """Return the value under `key`; the first call builds it."""
        if key not in self.cache:
            self.cache[key] = build()
        value: T = self.cache[key]
        return value


@dataclass(frozen=True)
class Plan:
    """The pictures that a metric needs: what each shows, and its seed. Metrics with equal plans share the drawing."""

    wanted: Wanted
    seeds: Sequence[int]


@dataclass(frozen=True)
class Drawn:
    """The pictures of a plan, 0..255, in the plan's order."""

    pictures: UInt8[Tensor, "samples height width channels"]
    plan: Plan


@dataclass(frozen=True)
class Measurement:
    """Numbers by name, such as "KID-EffNetLite0", and everything that they depend on except the run and its sampling.

    `made_of` is JSON: the extractor with the hash of its weights, resolution and resampling, the hash of the reference
    and so on. If two measurements differ in any of it, they cannot be compared.
    """

    values: dict[str, float]
    made_of: dict[str, Any]


class Metric(ABC):
    """A metric of `leandit evaluate`; each is an entry of the table in `leandit.evaluation.registry`."""

    name: ClassVar[str]
    """The name on the command line."""

    @abstractmethod
    def plan(self, job: Job) -> Plan | None:
        """Return what to draw, or None for a metric that needs no pictures.

        Raises LeanDiTError, before anything is drawn, if the job cannot be done: too few samples (with the number
        needed), a class model for a metric that needs prompts, missing weights.
        """

    @abstractmethod
    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        """Return the numbers."""
