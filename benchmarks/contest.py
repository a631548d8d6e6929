"""Alternating timings: every round runs each contestant once, so that a busy moment hits all of them alike."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant over the rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the middle round."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Return the distance between the quartiles as a share of the median."""
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median


def compete(contestants: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, Timing]:
    """Time every contestant once a round, after a few rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(warmup + rounds):
        for name, run in contestants.items():
            taken = _time(run)
            if number >= warmup:
                seconds[name].append(taken)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def ratio(one: Timing, other: Timing) -> float:
    """Return the median over the rounds of one's time over the other's in the same round."""
    return statistics.median(a / b for a, b in zip(one.seconds, other.seconds, strict=True))


def _time(run: Callable[[], object]) -> float:
    _wait()
    start = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(run: Callable[[], object]) -> int:
    """Return the most bytes that a run has allocated beyond what was there before it."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    return peak_memory_on_cpu(run)


def peak_memory_on_cpu(run: Callable[[], object]) -> int:
    """Return the most bytes on the CPU that a run has allocated beyond what was there before it."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = height = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        height = max(height, now)
    return height


def device() -> str:
    """Return the device that benchmarks run on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def processor() -> str:
    """Return the name of the device."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def setting() -> str:
    """Return the machine, the threads and the versions, as a line of a results file."""
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "numpy", "transformers", "diffusers"))
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return f"{processor()}, {threads}, Python {platform.python_version()}, {versions}; {load}; {today()}"


def today() -> str:
    """Return the date."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
