"""Attack a tiny run's folder thousands of times, and report crashes, hangs, silent acceptances and wrong blame.

Usage: python benchmarks/attack_checkpoints.py --count 10000 [--first-seed 1000000] [--workers 2]

Each attack corrupts a fresh copy of the run (`tests/run/corruptions.py`), loads it and resumes it. Workers are forks:
if one is killed by a signal, that counts as a crash of its attack, and a new one goes on after it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/run"))

from attacks import Attacker

FAULTS = ("crash", "hang", "silent")


def main() -> int:
    """Run all attacks, print the report as JSON, and return 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first-seed", type=int, default=1_000_000, help="the test suite uses the seeds from 0")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)  # A fork has none of its parent's threads.
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        Attacker(Path(folder) / "shared")  # Trains the two runs once.
        overseers = [
            start(Path(folder), worker, range(options.first_seed + worker, end(options), options.workers))
            for worker in range(options.workers)
        ]
        for pid in overseers:
            os.waitpid(pid, 0)
        lines = [json.loads(line) for file in Path(folder).glob("*.jsonl") for line in file.read_text().splitlines()]
    report = summarise(lines)
    report["seconds"] = round(time.perf_counter() - started)
    print(json.dumps(report, indent=2))
    return int(any(report[fault] for fault in FAULTS) or report["right file named"] < 0.99)


def end(options: argparse.Namespace) -> int:
    """Return the seed after the last."""
    return int(options.first_seed + options.count)


def start(folder: Path, worker: int, seeds: range) -> int:
    """Fork the overseer of a worker, and return its process. Outcomes become lines of worker-N.jsonl."""
    if pid := os.fork():
        return pid
    own, log = folder / f"worker-{worker}", folder / f"worker-{worker}.jsonl"
    own.mkdir()
    for run in ("pristine", "other"):
        (own / run).symlink_to(folder / "shared" / run)
    rest = list(seeds)
    while rest:
        reading, writing = os.pipe()
        if not (pid := os.fork()):
            work(own, rest, log, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            done = len(pipe.read())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if done < len(rest):
            died = {
                "seed": rest[done],
                "what": "process",
                "verdict": "crash",
                "named": False,
                "kind": f"died: {status}",
            }
            write(log, died)
        rest = rest[done + 1 :]
    os._exit(0)


def work(own: Path, seeds: list[int], log: Path, done: int) -> None:
    """Make the attacks of these seeds. A byte goes into `done` after each."""
    try:
        attacker = Attacker(own)
        for seed in seeds:
            for outcome in attacker.attack(seed):
                kind = outcome.corruption.kind
                verdict = {"what": outcome.what, "verdict": outcome.verdict, "named": outcome.named}
                write(log, {"seed": seed, **verdict, "kind": kind})
            os.write(done, b".")
    finally:
        os._exit(1)


def write(log: Path, line: dict[str, object]) -> None:
    """Append a line of JSON."""
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")


def summarise(lines: list[dict[str, object]]) -> dict[str, object]:
    """Return the numbers of the report. One attack has two outcomes: of loading and of resuming."""
    verdicts = Counter(str(line["verdict"]) for line in lines)
    kinds = Counter(str(line["kind"]).partition(":")[0] for line in lines if line["what"] == "resume")
    told = [line for line in lines if line["verdict"] in ("noticed", "refused")]
    unnamed = [line for line in told if not line["named"]]
    faults = [line for line in lines if line["verdict"] in FAULTS]
    return {
        "attacks": len({line["seed"] for line in lines}),
        "kinds": dict(sorted(kinds.items())),
        "loading and resuming": {verdict: verdicts[verdict] for verdict in ("noticed", "refused", "as before")},
        **{fault: verdicts[fault] for fault in FAULTS},
        "right file named": round(1 - len(unnamed) / max(1, len(told)), 5),
        "examples": [*faults, *unnamed][:20],
    }


if __name__ == "__main__":
    sys.exit(main())
