"""Where the time of a sparse model goes on a CPU: its operators beside those of its dense twin.

    python benchmarks/profile_models.py [--pair "RaceDiT-S/2-4in32 : DiT-S/2"] [--precision bf16|fp32]

Each model takes some steps until its memory is in use, then some under torch's profiler, of which the fastest counts.
An operator's time is its own, without those that it calls. Profiling takes time and memory of its own: the first line
gives the fastest step without it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import torch

from contest import setting, table
from leandit.allocator import keep_memory
from leandit.run.resolve import fast_bf16
from whole_model import TWINS, device, our_call, runs

STEPS, LINES = 6, 14
Operators = Mapping[str, tuple[float, int]]  # milliseconds and calls


def fastest(run: Callable[[], None]) -> float:
    """Return the milliseconds of the fastest of some steps."""
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds)


def profiled(run: Callable[[], None]) -> Operators:
    """Return the operators of the fastest of some steps."""
    found = []
    for _ in range(STEPS):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            run()
        events = profile.key_averages()
        found.append({event.key: (event.self_cpu_time_total / 1e3, event.count) for event in events})
    return min(found, key=lambda operators: sum(milliseconds for milliseconds, _ in operators.values()))


def compared(one: Operators, other: Operators) -> list[list[str]]:
    """Return the operators that differ most in time, and the sum of all."""
    none = (0.0, 0)
    names = sorted({*one, *other}, key=lambda name: other.get(name, none)[0] - one.get(name, none)[0])
    lines = [(name, one.get(name, none), other.get(name, none)) for name in names[:LINES]]
    total = [
        (sum(ms for ms, _ in all_of.values()), sum(calls for _, calls in all_of.values())) for all_of in (one, other)
    ]
    lines.append(("all", total[0], total[1]))
    return [
        [name, f"{a:.0f}", str(calls_a), f"{b:.0f}", str(calls_b), f"{a - b:+.0f}"]
        for name, (a, calls_a), (b, calls_b) in lines
    ]


def report(pair: str, bf16: bool) -> str:
    """Return tables for a training and a sampling step as Markdown."""
    keep_memory()  # as training does
    steps = [runs(*our_call(config), bf16) for config in TWINS[pair]]
    parts = [
        f"## Where the time goes\n\n{pair}, {'bf16' if bf16 else 'fp32'}; milliseconds of a step, calls, difference."
    ]
    for index, what in enumerate(("Training", "Sampling")):
        plain = [fastest(both[index]) for both in steps]
        rows = compared(*(profiled(both[index]) for both in steps))
        parts.append(f"{what}: {plain[0]:.0f} and {plain[1]:.0f} ms without the profiler.")
        parts.append(table(("operator", "first, ms", "calls", "second, ms", "calls", "more"), rows))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Print the tables for a pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", choices=TWINS, default=next(iter(TWINS)))
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16" if fast_bf16(device()) else "fp32")
    options = parser.parse_args()
    print(setting())
    print(report(options.pair, options.precision == "bf16"))


if __name__ == "__main__":
    main()
