"""The compute budget: the thresholds of a trained model moved, so that tokens get fewer or more experts.

In evaluation a router of a strategy that spans samples keeps every score S >= tau. How many that are depends on
where tau lies among the scores, so the scores of a few drawings are recorded once, and the threshold for a budget b
is the score that b times as many of them reach:

    n(tau) = #{S >= tau},    tau_b = the round(b n(tau))-th largest score

per router, and per expert where the threshold is. Two things make it an estimate: the drawings are few, and a layer
that gets other experts hands other tokens to the next. What a drawing really spent is counted, not computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leandit.api import sampling_settings
from leandit.moe import Router, RouterOutput, routers
from leandit.run.conditioner import Wanted
from leandit.sampling import LoadedRun, draw

# What the scores are recorded from: few drawings of few steps, over all times.
_DRAWINGS = 4
_STEPS = 8
_PROMPTS = ("red apple", "smiling cat", "blue car", "yellow flower")


@dataclass(frozen=True)
class Calibration:
    """For each router its threshold and the scores of some drawings, in descending order, a column per threshold."""

    values: tuple[Tensor, ...]
    scores: tuple[Float[Tensor, "count columns"], ...]

    def thresholds(self, budget: float) -> list[Tensor]:
        """Return each router's threshold at `budget` times the experts that the model spends by itself.

        A budget beyond all scores keeps all that were recorded. Thresholds fall as the budget rises, so that the
        same scores give at least as many pairs.
        """
        pairs = zip(self.values, self.scores, strict=True)
        return [value if budget == 1 else _shifted(value, scores, budget) for value, scores in pairs]


def _shifted(value: Tensor, scores: Float[Tensor, "count columns"], budget: float) -> Tensor:
    kept = (scores >= value.cpu()).sum(0)
    wanted = (kept * budget).round().long().clamp(max=len(scores))
    found = scores.gather(0, (wanted - 1).clamp(min=0)[None])[0]
    # A column of which nothing is kept says nothing of where to move to.
    moved = torch.where((wanted == kept) | (kept == 0), value.cpu(), found)
    return moved.reshape(value.shape).to(value)


def has_thresholds(model: nn.Module) -> bool:
    """Return whether thresholds decide about the experts of this model in evaluation."""
    return any(router.spans_samples for _, router in routers(model))


def calibrate(run: LoadedRun) -> Calibration:
    """Record the scores of a few drawings of the run, with its own sampler in few steps; always the same ones."""
    chosen = [router for _, router in routers(run.model) if router.spans_samples]
    settings = sampling_settings(run.config.sampling, min(_STEPS, run.config.sampling.sampler.steps), None)
    with _recording(chosen) as recorded:
        draw(run, _wanted(run), range(_DRAWINGS), settings)
    columns = [router.threshold.value.numel() for router in chosen]
    scores = [torch.cat(parts).reshape(-1, width) for parts, width in zip(recorded, columns, strict=True)]
    values = tuple(router.threshold.value.clone() for router in chosen)
    return Calibration(values, tuple(part.sort(dim=0, descending=True).values for part in scores))


@contextlib.contextmanager
def _recording(chosen: Sequence[Router]) -> Iterator[list[list[Tensor]]]:
    """Collect the scores of each router, of the conditional half where guidance stacks two."""
    recorded: list[list[Tensor]] = [[] for _ in chosen]

    def note(index: int) -> Any:
        return lambda module, arguments, output: recorded[index].append(_scores(output))

    handles = [router.register_forward_hook(note(index)) for index, router in enumerate(chosen)]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _scores(output: RouterOutput) -> Float[Tensor, "pairs experts"]:
    return output.scores[:_DRAWINGS].flatten(0, 1).float().cpu()


def _wanted(run: LoadedRun) -> Wanted:
    """Return what to draw for the record: the run's own prompts, or classes spread over all there are."""
    if run.text is not None:
        prompts = [*run.config.sampling.prompts, *_PROMPTS]
        return prompts[:_DRAWINGS]
    count = run.model.config.num_classes
    return [index * count // _DRAWINGS for index in range(_DRAWINGS)] if count else None


@contextlib.contextmanager
def shifted(model: nn.Module, thresholds: Sequence[Tensor]) -> Iterator[None]:
    """Give the model's routers these thresholds for a while, and theirs back afterwards, to the bit."""
    values = [router.threshold.value for _, router in routers(model) if router.spans_samples]
    before = [value.clone() for value in values]
    try:
        _copy(thresholds, values)
        yield
    finally:
        _copy(before, values)


def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for new, value in zip(source, target, strict=True):
            value.copy_(new)
