"""What metrics that hold pictures against their prompts ask of a run."""

from __future__ import annotations

from collections.abc import Sequence

from leandit.errors import LeanDiTError
from leandit.evaluation.metric import Job, Plan


def need_prompts(job: Job, metric: str) -> None:
    """Raise a LeanDiTError for a model that is given no prompts."""
    if job.run.text is None:
        raise LeanDiTError(
            f"{job.run.path}: {metric} holds pictures against their prompts, and this model draws classes or nothing "
            "in particular; choose another metric for it"
        )


def repeat_prompts(job: Job, metric: str, prompts: Sequence[str]) -> Plan:
    """Return a plan that draws every prompt equally often, as often as `job.num_samples` allow, seed i for picture i.

    Raises LeanDiTError where that is less than once.
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
