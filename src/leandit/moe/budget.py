"""The compute budget: let the tokens of a trained model have fewer or more experts.

In expert choice the number of pairs is a setting, the capacity factor: it is multiplied by the share. If the pool of
a strategy spans samples, the router keeps every score S >= tau in evaluation. The scores of a few evaluations are
recorded once. For a share b of the trained compute, the threshold is chosen so that b times as many recorded scores
reach it:

    n(tau) = #{S >= tau},    tau_b = the round(b n(tau))-th largest score

for each router, or for each expert if each has a threshold. This is an estimate: the record is short, and other experts
in one layer change the input of the next.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.grid import Grid
from leandit.moe.router import PooledRouter
from leandit.moe.seams import RouterModule, RouterOutput, routers
from leandit.moe.strategies import GROUPED
from leandit.moe.threshold import Threshold


@dataclass(frozen=True)
class Calibration:
    """The threshold of each router, and the recorded scores: one column per threshold, in descending order."""

    values: tuple[Tensor, ...]
    scores: tuple[Float[Tensor, "count columns"], ...]

    def thresholds(self, share: float) -> list[Tensor]:
        """Return each router's threshold for `share` times the experts of the trained model.

        If the share needs more scores than were recorded, all recorded scores reach the threshold. A larger share never
        has a larger threshold. A share of 1 returns the model's thresholds, equal to the bit.
        """
        pairs = zip(self.values, self.scores, strict=True)
        return [value if share == 1 else _shifted(value, scores, share) for value, scores in pairs]


def _shifted(value: Tensor, scores: Float[Tensor, "count columns"], share: float) -> Tensor:
    kept = (scores >= value.cpu()).sum(0)
    wanted = (kept * share).round().long().clamp(max=len(scores))
    found = scores.gather(0, (wanted - 1).clamp(min=0)[None])[0]
    # If no score of a column reaches the threshold, the scores do not determine how far to move.
    moved = torch.where((wanted == kept) | (kept == 0), value.cpu(), found)
    return moved.reshape(value.shape).to(value)


def has_thresholds(model: nn.Module) -> bool:
    """Return whether thresholds select the experts of this model in evaluation."""
    return bool(_thresholds(model))


def can_change(model: nn.Module) -> bool:
    """Return whether the model can spend another share of its compute than the trained one."""
    return has_thresholds(model) or bool(_choosing(model))


def check_share(model: nn.Module, share: float, name: str = "compute") -> None:
    """Raise LeanDiTError, with `name` for the setting, if the model cannot spend this share of its trained compute."""
    if not 0 < share < float("inf"):
        raise LeanDiTError(f"{name} {share:g}: give a share above 0, such as 0.5; 1 is the trained compute")
    if share == 1 or has_thresholds(model):
        return
    if choosing := _choosing(model):
        most = min(router.config.num_experts / router.config.experts_per_token(False) for router in choosing)
        if share > most:
            exact = math.floor(most * 1000) / 1000
            raise LeanDiTError(f"{name} {share:g}: every token has every expert at {exact:g}; give at most this")
        if share * _least_pairs(model, choosing) < 1:
            raise LeanDiTError(f"{name} {share:g}: so small a share leaves no expert a token; give a larger one")
        return
    why = "its experts are selected without a threshold, so their number is fixed"
    if not any(True for _ in routers(model)):
        why = "it is dense and has no experts"
    raise LeanDiTError(f"{name} {share:g}: the model's compute cannot be changed: {why}; omit {name}")


def record_scores(model: nn.Module, evaluate: Callable[[], object], samples: int) -> Calibration:
    """Return the thresholds of the routers, and their scores while `evaluate` runs the model.

    Only the first `samples` samples of each batch count: guidance stacks the unconditional half after them.
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
    """Set these thresholds inside the context. On exit the model gets its own thresholds back, equal to the bit."""
    values = [threshold.value for threshold in _thresholds(model)]
    before = [value.clone() for value in values]
    try:
        _copy(thresholds, values)
        yield
    finally:
        _copy(before, values)


def _least_pairs(model: nn.Module, choosing: Sequence[PooledRouter]) -> float:
    """Return the pairs of the smallest pool from which experts choose; infinity if the number of tokens is unknown."""
    grid = getattr(model, "grid", None)
    tokens = grid.tokens if isinstance(grid, Grid) else math.inf
    configs = [router.config for router in choosing]
    return min((c.inference_group_tokens or tokens) * c.experts_per_token(False) for c in configs) + 1e-6


@contextlib.contextmanager
def scaled(model: nn.Module, share: float) -> Iterator[None]:
    """Multiply the capacity factor of expert choice at inference by `share` inside the context."""
    before = [(router, router.config) for router in _choosing(model)]
    try:
        for router, config in before:
            router.config = config.replace(inference_capacity_factor=share * config.experts_per_token(False))
        yield
    finally:
        for router, config in before:
            router.config = config


def _choosing(model: nn.Module) -> list[PooledRouter]:
    """Return the routers whose experts choose tokens, so that the number of pairs can be set."""
    found = (router for _, router in routers(model) if isinstance(router, PooledRouter))
    return [router for router in found if router.config.strategy in GROUPED]


def _thresholds(model: nn.Module) -> list[Threshold]:
    found: list[RouterModule] = [router for _, router in routers(model)]
    return [router.threshold for router in found if router.threshold is not None and router.spans_samples]


def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for new, value in zip(source, target, strict=True):
            value.copy_(new)
