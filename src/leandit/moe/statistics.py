"""Statistics of one optimiser step: what moves thresholds, and what says whether experts share the work.

Legend: E experts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leandit.moe.losses import co_selection
from leandit.moe.router import Router, RouterOutput


@dataclass(frozen=True)
class RouterStats:
    """One layer in one optimiser step: pair counts summed and the cutoff averaged over its micro-batches."""

    co_selection: Float[Tensor, "experts experts"]
    cutoff: Tensor | None

    @property
    def load(self) -> Float[Tensor, " experts"]:
        """Pairs per expert."""
        return self.co_selection.diagonal()


@torch.no_grad()
def router_stats(micro_batches: Sequence[Sequence[RouterOutput]]) -> list[RouterStats]:
    """Reduce the router outputs of a step, micro-batch by layer, to one record per layer."""
    return [_reduce(layer) for layer in zip(*micro_batches, strict=True)]


def _reduce(outputs: Sequence[RouterOutput]) -> RouterStats:
    together = torch.stack([co_selection(output.mask) for output in outputs]).sum(0)
    cutoffs = [output.cutoff for output in outputs if output.cutoff is not None]
    return RouterStats(together, torch.stack(cutoffs).mean(0) if cutoffs else None)


def routers(model: nn.Module) -> Iterable[tuple[str, Router]]:
    """Yield (name, router) for every MoE layer, in the order of the model's router outputs."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Router))


def post_step(model: nn.Module, stats: Sequence[RouterStats]) -> None:
    """Move every threshold, once per optimiser step; the only place where routing state changes."""
    for (_, router), layer in zip(routers(model), stats, strict=True):
        if layer.cutoff is not None:
            router.threshold.update(layer.cutoff)


def max_violation(load: Float[Tensor, " experts"]) -> float:
    """MaxVio = (max_e load_e - mean load) / mean load; 0 is perfect balance, E - 1 is one expert doing everything.

    Reference: Loss-Free Balancing (arXiv 2408.15664); Expert Race, Table 2.
    """
    mean = load.float().mean()
    return float((load.max() - mean) / mean) if mean > 0 else 0.0


def combination_usage(together: Float[Tensor, "experts experts"]) -> float:
    """Comb: percentage of the E(E-1)/2 expert pairs that make up the first 95 % of all co-selections.

    Pair counts are sorted in descending order and normalised; the pairs whose cumulative share is below 95 % count.
    About 95 for uniform use, 0 when no token has two experts.

    Reference: Expert Race, Figure 13 and Table 2.
    """
    num_experts = together.shape[0]
    upper = torch.triu_indices(num_experts, num_experts, offset=1)
    counts = together[upper[0], upper[1]].double().sort(descending=True).values
    if counts.sum() == 0:
        return 0.0
    return 100 * float((counts.cumsum(0) / counts.sum() < 0.95).double().mean())


class CollapseWatch:
    """Names the experts that got less than `share` of their fair load for `patience` steps in a row.

    Not part of a checkpoint: after a restart the count begins anew.
    """

    def __init__(self, names: Sequence[str], share: float = 0.01, patience: int = 50) -> None:
        self.names = names
        self.share = share
        self.patience = patience
        self._starved: list[Tensor] = []

    def update(self, stats: Sequence[RouterStats]) -> list[str]:
        """Return a line for each expert that reaches `patience` in this step."""
        if not self._starved:
            self._starved = [torch.zeros(len(layer.load), dtype=torch.long) for layer in stats]
        lines = []
        for index, (name, layer) in enumerate(zip(self.names, stats, strict=True)):
            load = layer.load.cpu()
            starved = load < self.share * load.mean()
            self._starved[index] = torch.where(starved, self._starved[index] + 1, 0)
            lines += [
                f"{name}: expert {expert} got under {self.share:.0%} of its fair share for {self.patience} steps"
                for expert in (self._starved[index] == self.patience).nonzero()[:, 0].tolist()
            ]
        return lines
