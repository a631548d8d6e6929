"""One evaluation from a run to its result, as the command line and Python call it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leandit.data import SourceConfig
from leandit.diffusion import build_sampler
from leandit.errors import LeanDiTError, unknown
from leandit.evaluation.metric import Drawn, Job, Metric, Plan
from leandit.evaluation.record import Result, build_record, checkpoint_facts, write_record
from leandit.evaluation.reference import open_reference
from leandit.evaluation.registry import WEIGHTS, build_metric
from leandit.evaluation.samples import Progress, Rank, SampleSet
from leandit.run.config import SamplingConfig
from leandit.sampling import LoadedRun, load, output_folder, sampling_settings

DEFAULT_METRICS = ("kid", "fd", "precision_recall")
# With fewer samples the bias of the Fréchet distance and of the Inception score shows.
_FEW = 5_000
_BIASED = ("fd", "sfid", "inception_score")
_MAX_SAMPLES = 1_000_000


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: the record as JSON, and the file that holds it.

    In a process of another rank than 0, which only draws, the record is empty and there is no file.
    """

    record: dict[str, Any]
    path: Path | None

    @property
    def values(self) -> dict[str, float]:
        """Return every number by its name, such as "KID-EffNetLite0"."""
        metrics = self.record.get("metrics", {}).values()
        return {name: value for metric in metrics for name, value in metric["values"].items()}

    @property
    def note(self) -> str | None:
        """Return a warning if a number is biased because the samples are few; else None."""
        metrics = self.record.get("metrics", {})
        biased = [name for metric in _BIASED if metric in metrics for name in metrics[metric]["values"]]
        samples = max((metric["samples"] for metric in metrics.values()), default=0)
        if not biased or samples >= _FEW:
            return None
        return (
            f"With {samples} samples, fewer than {_FEW}, {biased[0]} is biased by their number: read KID, which is not."
        )


def evaluate(
    run: LoadedRun | str | Path,
    metrics: str | Metric | Iterable[str | Metric] = DEFAULT_METRICS,
    num_samples: int = 1000,
    *,
    reference: str | Path | SourceConfig | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    weights: str = "ema",
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int = 64,
    out: str | Path | None = None,
    weights_from: Mapping[str, str | Path] | None = None,
    download: bool = False,
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
) -> Evaluation:
    """Draw `num_samples` pictures of a run, measure them, and write the result with everything that it depends on.

    `metrics` are names as on the command line, or objects. `reference` are the real pictures: a folder, a data source,
    or a data source as JSON; None is the run's training data. `steps` and `guidance` default to the run's own.
    `weights` are "ema" or "model", `device` and `precision` as in `leandit.load`; a run that is loaded has its own.

    Pictures and result go into `out`, by default "evaluation" in the run's folder; pictures that are there from an
    earlier evaluation are not drawn again. `weights_from` maps names of `leandit.evaluation.registry.WEIGHTS` to the
    paths of these weights; without a path they are downloaded if `download` is true, and missing otherwise.
    `progress(done, total)` counts pictures, and `log` gets a line for each stage. With RANK and WORLD_SIZE in the
    environment the processes share the drawing.

    Raises LeanDiTError, before anything is drawn, for whatever does not fit the run or is missing.
    """
    rank = Rank.from_environment(os.environ)
    if not 1 <= num_samples <= _MAX_SAMPLES:
        raise LeanDiTError(f"--num-samples {num_samples}: from 1 to {_MAX_SAMPLES}")
    if batch_size < 1:
        raise LeanDiTError(f"--batch-size {batch_size}: must be at least 1")
    chosen = _metrics(metrics)
    loaded = run if isinstance(run, LoadedRun) else load(run, weights, _device(rank, device), precision)
    settings = sampling_settings(loaded.config.sampling, steps, guidance)
    build_sampler(settings.sampler, loaded.objective.path)
    real = open_reference(loaded, reference)
    job = Job(loaded, num_samples, real, _paths(weights_from or {}), batch_size, download)
    plans = {metric.name: metric.plan(job) for metric in chosen}
    checkpoint = checkpoint_facts(loaded, loaded.weights)
    folder = output_folder(out, loaded.path, "evaluation")
    say = log if log is not None and rank.number == 0 else _silent
    say(f"{loaded.path}: {checkpoint['weights']} weights of step {checkpoint['step']}")
    change = real.change()
    say(f"Reference: {real.name}, {len(real)} pictures{f', {change}' if change else ''}")
    say(real.summary("pictures of the reference"))
    sets = {
        name: SampleSet(loaded, plan, settings, checkpoint, folder / "samples")
        for name, plan in plans.items()
        if plan is not None
    }
    for sample_set in {each.folder: each for each in sets.values()}.values():
        say(_about_drawing(sample_set, settings))
        sample_set.draw(rank, batch_size, progress if rank.number == 0 else None)
    if rank.number:
        return Evaluation({}, None)
    results = _measure(job, chosen, plans, sets, rank, say)
    record = build_record(job, settings, checkpoint, results, sys.argv)
    return Evaluation(record, write_record(folder, record))


def _silent(line: str) -> None:
    """Say nothing."""


def _metrics(given: str | Metric | Iterable[str | Metric]) -> list[Metric]:
    """Return each metric once, in the order given."""
    each = [given] if isinstance(given, str | Metric) else given
    built = (metric if isinstance(metric, Metric) else build_metric(metric) for metric in each)
    metrics = list({metric.name: metric for metric in built}.values())
    if not metrics:
        raise LeanDiTError("no metric is named: choose one or more, such as kid")
    return metrics


def _paths(given: Mapping[str, str | Path]) -> dict[str, Path]:
    for name in given:
        if name not in WEIGHTS:
            raise unknown("weights in --weights-from", name, WEIGHTS)
    return {name: Path(path).expanduser() for name, path in given.items()}


def _device(rank: Rank, device: str) -> str:
    """Return for "auto" a GPU of its own for each rank of this machine; without ranks or GPUs the given device."""
    count = torch.cuda.device_count()
    if device != "auto" or rank.count == 1 or not count:
        return device
    local = os.environ.get("LOCAL_RANK", str(rank.number))
    return f"cuda:{int(local) % count}" if local.isdecimal() else "auto"


def _about_drawing(sample_set: SampleSet, settings: SamplingConfig) -> str:
    guidance = "" if sample_set.plan.wanted is None else f", guidance {settings.guidance.scale:g}"
    steps = f"{settings.sampler.steps} steps of {settings.sampler.type}{guidance}"
    return f"Drawing {len(sample_set.plan.seeds)} pictures ({steps}) into {sample_set.folder}"


def _measure(
    job: Job,
    metrics: Sequence[Metric],
    plans: Mapping[str, Plan | None],
    sets: Mapping[str, SampleSet],
    rank: Rank,
    say: Callable[[str], None],
) -> dict[str, Result]:
    """Return what each metric measures; metrics that share a set of pictures read it once."""
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
