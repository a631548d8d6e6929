"""What to draw so that a run's pictures can be held against real ones."""

from __future__ import annotations

from leandit.data import Example, Source
from leandit.errors import LeanDiTError
from leandit.evaluate.metric import Job, Plan
from leandit.random import Stream, generator
from leandit.sampling import LoadedRun
from leandit.train.conditioner import Wanted


def plan_like_reference(job: Job) -> Plan:
    """Return a plan of `job.num_samples` pictures with seeds 0, 1, ..., that show what the reference shows.

    Picture i has the label or the first caption of reference picture order[i mod size], `order` being a fixed
    permutation: each is used about equally often, so classes come in the reference's proportions. Where the reference
    has other classes than the run, the run's are gone through in turn.
    """
    key = "plan_like_reference"
    if key not in job.cache:
        job.cache[key] = Plan(_wanted(job), range(job.num_samples))
    plan = job.cache[key]
    assert isinstance(plan, Plan)
    return plan


def _wanted(job: Job) -> Wanted:
    run, source = job.run, job.reference
    num_classes = run.model.config.num_classes or 0
    if run.text is None and not num_classes:
        return None
    if run.text is None and not _same_classes(run, source):
        return [number % num_classes for number in range(job.num_samples)]
    shown = _shown(source, job.num_samples)
    if run.text is None:
        return [example.label or 0 for example in shown]
    return [_caption(example) for example in shown]


def _same_classes(run: LoadedRun, source: Source) -> bool:
    return bool(source.class_names) and tuple(source.class_names) == tuple(run.class_names)


def _shown(source: Source, count: int) -> list[Example]:
    """Return the reference picture behind each sample; each is read once, which may mean that a file is decoded."""
    order = generator(0, Stream.ORDER, 0).permutation(len(source))
    read = [source[int(n)] for n in order[:count]]
    return [read[i % len(read)] for i in range(count)]


def _caption(example: Example) -> str:
    if not example.text:
        raise LeanDiTError(
            f"--reference: {example.key} has no caption, and the run draws from captions; name pictures with captions, "
            "such as a folder with metadata.jsonl, or leave --reference out for the run's training data"
        )
    return example.text
