"""Draw with more or less compute than in training: scores of a few drawings show how far to shift the thresholds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from leandit.models import uncompiled
from leandit.moe.budget import Calibration, check_share, has_thresholds, record_scores, scaled, shifted
from leandit.run.conditioner import Wanted
from leandit.sampling.generate import draw
from leandit.sampling.load import COMPUTE, LoadedRun

# Scores are recorded from few drawings of few steps, over all times.
_DRAWINGS = 4
_STEPS = 8
_PROMPTS = ("red apple", "smiling cat", "blue car", "yellow flower")


def calibrate(run: LoadedRun) -> Calibration:
    """Record the scores of a few drawings with the run's own sampler in few steps. The drawings are always the same."""
    settings = run.config.sampling
    sampler = settings.sampler.replace(steps=min(_STEPS, settings.sampler.steps))
    settings = settings.replace(sampler=sampler)
    with uncompiled(run.model):  # hooks do not run inside compiled layers
        return record_scores(run.model, lambda: draw(run, _wanted(run), range(_DRAWINGS), settings), _DRAWINGS)


@contextlib.contextmanager
def at_compute(run: LoadedRun, share: float) -> Iterator[None]:
    """Let the run's model spend about `share` times the experts per token that it was trained with; 1 changes nothing.

    With thresholds the exact number depends on the picture; expert choice has it exactly. The context changes the
    model, so draw one picture at a time. Raises LeanDiTError if the share is not above 0, or more than all experts, or
    if the number of the model's experts is fixed.
    """
    check_share(run.model, share)
    with contextlib.ExitStack() as stack:
        if share != 1 and has_thresholds(run.model):
            stack.enter_context(shifted(run.model, calibrate(run).thresholds(share)))
        elif share != 1:
            stack.enter_context(scaled(run.model, share))
        before = run.compute
        run.__dict__[COMPUTE] = share
        stack.callback(run.__dict__.__setitem__, COMPUTE, before)
        yield


def _wanted(run: LoadedRun) -> Wanted:
    """Return what to draw for the record: the run's own prompts, or classes spread evenly over all classes."""
    if run.text is not None:
        prompts = [*run.config.sampling.prompts, *_PROMPTS]
        return prompts[:_DRAWINGS]
    count = run.model.config.num_classes
    return [index * count // _DRAWINGS for index in range(_DRAWINGS)] if count else None
