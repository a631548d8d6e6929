"""The compute budget: the thresholds of a trained model moved, so that tokens get fewer or more experts.

In evaluation a router whose strategy spans samples keeps every score S >= tau. How many that are depends on where tau
lies among the scores. So the scores of some evaluations are recorded once, and the threshold for a share b of the
trained compute is the score that b times as many of them reach:

    n(tau) = #{S >= tau},    tau_b = the round(b n(tau))-th largest score

per router, and per expert if the threshold is. It is an estimate: the record is short, and a layer that gets other
experts hands other tokens to the next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.moe.seams import RouterModule, RouterOutput, routers
from leandit.moe.threshold import Threshold


@dataclass(frozen=True)
class Calibration:
    """For each router its threshold and the recorded scores, in descending order, a column per threshold."""

    values: tuple[Tensor, ...]
    scores: tuple[Float[Tensor, "count columns"], ...]

    def thresholds(self, share: float) -> list[Tensor]:
        """Return each router's threshold at `share` times the experts that the model spends by itself.

        A share beyond all scores keeps all that were recorded. Thresholds fall as the share rises, so that the same
        scores give at least as many pairs. A share of 1 is the model as it is, to the bit.
        """
        pairs = zip(self.values, self.scores, strict=True)
        return [value if share == 1 else _shifted(value, scores, share) for value, scores in pairs]


def _shifted(value: Tensor, scores: Float[Tensor, "count columns"], share: float) -> Tensor:
    kept = (scores >= value.cpu()).sum(0)
    wanted = (kept * share).round().long().clamp(max=len(scores))
    found = scores.gather(0, (wanted - 1).clamp(min=0)[None])[0]
    # A column of which nothing is kept does not tell how far to move.
    moved = torch.where((wanted == kept) | (kept == 0), value.cpu(), found)
    return moved.reshape(value.shape).to(value)


def has_thresholds(model: nn.Module) -> bool:
    """Return whether thresholds decide about the experts of this model in evaluation."""
    return bool(_thresholds(model))


def check_share(model: nn.Module, share: float, name: str = "compute") -> None:
    """Raise LeanDiTError, with `name` for the setting, if the model cannot spend this share of its trained compute."""
    if not 0 < share < float("inf"):
        raise LeanDiTError(f"{name} {share:g}: give a share above 0, such as 0.5; 1 is as trained")
    if share == 1 or has_thresholds(model):
        return
    why = "its experts are chosen without a threshold, so their number is fixed"
    if not any(True for _ in routers(model)):
        why = "it is dense and has no experts"
    raise LeanDiTError(f"{name} {share:g}: the model cannot spend another share: {why}; leave {name} out")


def record_scores(model: nn.Module, evaluate: Callable[[], object], samples: int) -> Calibration:
    """Return the thresholds and the scores that the routers have while `evaluate` runs the model.

    Of each batch the first `samples` samples count: guidance stacks the unconditional half after them.
    """
    chosen = [router for _, router in routers(model) if router.spans_samples]
    recorded: list[list[Tensor]] = [[] for _ in chosen]

    def noting(scores: list[Tensor]) -> Callable[[nn.Module, object, RouterOutput], None]:
        return lambda _, __, output: scores.append(output.scores[:samples].detach().float().cpu())

    handles = [router.register_forward_hook(noting(scores)) for router, scores in zip(chosen, recorded, strict=True)]
    try:
        evaluate()
    finally:
        for handle in handles:
            handle.remove()
    thresholds = _thresholds(model)
    columns = zip(recorded, thresholds, strict=True)
    scores = [torch.cat([_columns(part, threshold) for part in parts]) for parts, threshold in columns]
    values = tuple(threshold.value.clone() for threshold in thresholds)
    return Calibration(values, tuple(part.sort(dim=0, descending=True).values for part in scores))


def _columns(scores: Float[Tensor, "samples tokens experts"], threshold: Threshold) -> Float[Tensor, "count columns"]:
    """Return the scores that are compared with each value of the threshold."""
    count = threshold.value.numel()
    if threshold.rows == "L" and count > 1:
        same = count == scores.shape[1]
        return scores.transpose(1, 2).reshape(-1, count) if same else scores.reshape(-1, 1).expand(-1, count)
    return scores.reshape(-1, count)


@contextlib.contextmanager
def shifted(model: nn.Module, thresholds: Sequence[Tensor]) -> Iterator[None]:
    """Give the model's routers these thresholds inside the context, and afterwards theirs back, to the bit."""
    values = [threshold.value for threshold in _thresholds(model)]
    before = [value.clone() for value in values]
    try:
        _copy(thresholds, values)
        yield
    finally:
        _copy(before, values)


def _thresholds(model: nn.Module) -> list[Threshold]:
    found: list[RouterModule] = [router for _, router in routers(model)]
    return [router.threshold for router in found if router.threshold is not None and router.spans_samples]


def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for new, value in zip(source, target, strict=True):
            value.copy_(new)
