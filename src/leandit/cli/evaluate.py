"""`leandit evaluate`: measure what a run draws, or put two results side by side."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from leandit.api import load, sampling_settings
from leandit.cli.output import say
from leandit.cli.output_folder import output_folder
from leandit.cli.progress import PLAIN_EVERY, SamplingProgress, time_left
from leandit.diffusion import build_sampler
from leandit.errors import LeanDiTError, unknown
from leandit.evaluation.compare import differences, rows
from leandit.evaluation.metric import Drawn, Job, Metric, Plan
from leandit.evaluation.record import Result, build_record, checkpoint_facts, read_record, write_record
from leandit.evaluation.reference import FittedSource, open_reference
from leandit.evaluation.registry import WEIGHTS, build_metric
from leandit.evaluation.samples import Rank, SampleSet
from leandit.run.config import SamplingConfig
from leandit.sampling import LoadedRun

DEFAULT_METRICS = ("kid", "fd", "precision_recall")
# Below this number of samples the bias of the Fréchet distance and of the Inception score shows.
_FEW = 5_000
_BIASED = ("fd", "sfid", "inception_score")
_MAX_SAMPLES = 1_000_000


def run(options: argparse.Namespace) -> int:
    """Do what the options ask for: compare two results, or evaluate a run and write its result."""
    if options.compare:
        return compare(Path(options.compare[0]), Path(options.compare[1]), options.anyway)
    rank = Rank.from_environment(os.environ)
    _check(options)
    metrics = _metrics(options.metrics or DEFAULT_METRICS)
    loaded = load(options.folder, weights=options.weights, device=_device(rank))
    settings = sampling_settings(loaded.config.sampling, options.steps, options.guidance)
    build_sampler(settings.sampler, loaded.objective.path)
    reference = open_reference(loaded, options.reference)
    job = Job(
        loaded, options.num_samples, reference, _paths(options.weights_from), options.batch_size, options.download
    )
    plans = {metric.name: metric.plan(job) for metric in metrics}
    checkpoint = checkpoint_facts(loaded, options.weights)
    out = output_folder(options.out, loaded.path, "evaluation")
    if rank.number == 0:
        _announce(loaded, checkpoint, reference, out)
    sets = _draw(loaded, plans, settings, checkpoint, out, rank, options.batch_size)
    if rank.number:
        return 0
    results = _measure(job, metrics, plans, sets, rank)
    path = write_record(out, build_record(job, settings, checkpoint, results, sys.argv))
    _show(results, path)
    return 0


def compare(first: Path, second: Path, anyway: bool) -> int:
    """Print the numbers of two results side by side; a LeanDiTError lists what makes them incomparable."""
    a, b = read_record(first), read_record(second)
    differing = differences(a, b)
    lines = "\n".join(f"  {difference}" for difference in differing)
    if differing and not anyway:
        raise LeanDiTError(
            f"{first} and {second} cannot be compared, since these differ:\n{lines}\n"
            "Evaluate one of them again like the other, or add --anyway to see the numbers all the same"
        )
    for record in (a, b):
        say(f"{record['run'].get('name')} at step {record['run'].get('step')} ({record['run'].get('path')})")
    table = rows(a, b)
    width = max(len(name) for name, *_ in table)
    for name, *values in table:
        say(f"{name:<{width}}  " + "  ".join("         -" if value is None else f"{value:>10.4f}" for value in values))
    if differing:
        say(f"Not comparable, since these differ:\n{lines}")
    return 0


class _DrawingProgress(SamplingProgress):
    """Pictures drawn: a bar on a terminal, elsewhere a line every ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._started = self._printed = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        super().__call__(done, total)
        now = time.monotonic()
        if self._first is None:
            # What an earlier evaluation left cost no time.
            self._first, self._started = done, now
        elif not self.console.is_terminal and now - self._printed > PLAIN_EVERY and done > self._first:
            self._printed = now
            eta = time_left(now - self._started, done - self._first, total - done)
            say(f"{done}/{total} pictures  ETA {eta}")


def _check(options: argparse.Namespace) -> None:
    if options.folder is None:
        raise LeanDiTError("name a run, as in `leandit evaluate runs/quickstart`, or two results with --compare")
    if not 1 <= options.num_samples <= _MAX_SAMPLES:
        raise LeanDiTError(f"--num-samples {options.num_samples}: from 1 to {_MAX_SAMPLES}")
    if options.batch_size < 1:
        raise LeanDiTError(f"--batch-size {options.batch_size}: must be at least 1")
    if options.anyway:
        raise LeanDiTError("--anyway belongs to --compare")


def _metrics(names: Sequence[str]) -> list[Metric]:
    """Return each metric once, in the order given."""
    metrics = {metric.name: metric for metric in (build_metric(name) for name in names)}
    return list(metrics.values())


def _paths(given: Sequence[str]) -> dict[str, Path]:
    paths = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise LeanDiTError(f"--weights-from {text[:80]}: expected NAME=PATH, as in inception=weights.pth")
        if name not in WEIGHTS:
            raise unknown("weights in --weights-from", name, WEIGHTS)
        paths[name] = Path(path).expanduser()
    return paths


def _device(rank: Rank) -> str:
    """Give each rank of this machine a GPU of its own."""
    count = torch.cuda.device_count()
    if rank.count == 1 or not count:
        return "auto"
    local = os.environ.get("LOCAL_RANK", str(rank.number))
    return f"cuda:{int(local) % count}" if local.isdecimal() else "auto"


def _announce(loaded: LoadedRun, checkpoint: Mapping[str, Any], reference: FittedSource, out: Path) -> None:
    say(f"{loaded.path}: {checkpoint['weights']} weights of step {checkpoint['step']}")
    change = reference.change()
    say(f"Reference: {reference.name}, {len(reference)} pictures{f', {change}' if change else ''}")


def _draw(
    loaded: LoadedRun,
    plans: Mapping[str, Plan | None],
    settings: SamplingConfig,
    checkpoint: dict[str, Any],
    out: Path,
    rank: Rank,
    batch_size: int,
) -> dict[str, SampleSet]:
    """Draw each set of pictures that a metric wants, once; return the set of each metric that wants one."""
    sets = {
        name: SampleSet(loaded, plan, settings, checkpoint, out / "samples")
        for name, plan in plans.items()
        if plan is not None
    }
    for sample_set in {each.folder: each for each in sets.values()}.values():
        if rank.number == 0:
            guidance = "" if sample_set.plan.wanted is None else f", guidance {settings.guidance.scale:g}"
            steps = f"{settings.sampler.steps} steps of {settings.sampler.type}{guidance}"
            say(f"Drawing {len(sample_set.plan.seeds)} pictures ({steps}) into {sample_set.folder}")
        with _DrawingProgress() as progress:
            sample_set.draw(rank, batch_size, progress if rank.number == 0 else None)
    return sets


def _measure(
    job: Job,
    metrics: Sequence[Metric],
    plans: Mapping[str, Plan | None],
    sets: Mapping[str, SampleSet],
    rank: Rank,
) -> dict[str, Result]:
    drawn: dict[Path, Drawn] = {}
    results: dict[str, Result] = {}
    for metric in metrics:
        say(f"Measuring {metric.name} ...")
        pictures = None
        if metric.name in sets:
            folder = sets[metric.name].folder
            if folder not in drawn:
                drawn[folder] = sets[metric.name].collect(rank)
            pictures = drawn[folder]
        results[metric.name] = (plans[metric.name], metric.measure(job, pictures))
    return results


def _show(results: Mapping[str, Result], path: Path) -> None:
    numbers = {name: value for _, measured in results.values() for name, value in measured.values.items()}
    width = max(len(name) for name in numbers)
    say()
    for name, value in numbers.items():
        say(f"{name:<{width}}  {value:>10.4f}")
    say()
    biased = [name for metric, (plan, measured) in results.items() if metric in _BIASED for name in measured.values]
    samples = max((len(plan.seeds) for plan, _ in results.values() if plan is not None), default=0)
    if biased and samples < _FEW:
        say(
            f"With {samples} samples, fewer than {_FEW}, {biased[0]} is biased by their number: read KID, which is not."
        )
    say(f"The numbers and all that they depend on: {path}")
