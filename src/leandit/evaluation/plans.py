"""What to draw: the labels or captions of the reference, or every prompt equally often."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from leandit.data import Source
from leandit.errors import LeanDiTError
from leandit.evaluation.metric import Job, Plan
from leandit.random import Stream, generator
from leandit.run.conditioner import Wanted
from leandit.sampling import LoadedRun


def plan_like_reference(job: Job) -> Plan:
    """Return a plan of `job.num_samples` pictures with seeds 0, 1, ..., that show what the reference shows.

    Picture i has the label or the first caption of reference picture order[i mod size], and `order` is a fixed
    permutation. Each is used about equally often, so classes have the reference's proportions. If the reference has
    other classes than the run, the run's classes are used in turn.
    """
    return job.kept("plan_like_reference", lambda: Plan(_wanted(job), range(job.num_samples)))


def drawn_sha256(plan: Plan) -> str:
    """Return the SHA-256 of a plan's labels or captions in their order, as JSON."""
    wanted = None if plan.wanted is None else list(plan.wanted)
    return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()


def same_classes(run: LoadedRun, source: Source) -> bool:
    """Return whether a label means the same in both: the same class names in the same order."""
    return bool(source.class_names) and tuple(source.class_names) == tuple(run.class_names)


@dataclass(frozen=True)
class _Shown:
    """What a reference picture shows, without its pixels: there may be a million pictures."""

    label: int | None
    text: str | None
    key: str


def _wanted(job: Job) -> Wanted:
    run, source = job.run, job.reference
    num_classes = run.model.config.num_classes or 0
    if run.text is None and not num_classes:
        return None
    if run.text is None and not same_classes(run, source):
        return [number % num_classes for number in range(job.num_samples)]
    shown = _shown(source, job.num_samples)
    if run.text is None:
        return [each.label or 0 for each in shown]
    return [_caption(each) for each in shown]


def _shown(source: Source, count: int) -> list[_Shown]:
    """Return what each sample shows, from its reference picture; each is read once, since this may decode a file."""
    order = generator(0, Stream.ORDER, 0).permutation(len(source))
    read = [_Shown(each.label, each.text, each.key) for each in (source[int(n)] for n in order[:count])]
    return [read[i % len(read)] for i in range(count)]


def _caption(shown: _Shown) -> str:
    if not shown.text:
        raise LeanDiTError(
            f"--reference: {shown.key} has no caption, and the run draws from captions; name pictures with captions, "
            "such as a folder with metadata.jsonl, or leave --reference out for the run's training data"
        )
    return shown.text


def need_prompts(job: Job, metric: str) -> None:
    """Raise LeanDiTError for a model that does not read prompts."""
    if job.run.text is None:
        raise LeanDiTError(
            f"{job.run.path}: {metric} compares pictures with their prompts, and this model draws classes or has no "
            "condition; choose another metric for it"
        )


def repeat_prompts(job: Job, metric: str, prompts: Sequence[str]) -> Plan:
    """Return a plan that draws every prompt equally often, as often as `job.num_samples` allows, seed i for picture i.

    Raises LeanDiTError if there are fewer samples than prompts.
    """
    need_prompts(job, metric)
    each = job.num_samples // len(prompts)
    if not each:
        raise LeanDiTError(
            f"{metric} has {len(prompts)} prompts, {job.num_samples} samples were asked for; give --num-samples "
            f"{len(prompts)} or a multiple of it"
        )
    wanted = [prompt for prompt in prompts for _ in range(each)]
    return Plan(wanted, range(len(wanted)))
