"""Statistics of one optimiser step: they update the state of routers, and show whether experts share the work.

Legend: E experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leandit.moe.losses import co_selection
from leandit.moe.seams import RouterOutput, RouterStats, routers


@torch.no_grad()
def router_stats(outputs: Sequence[RouterOutput], num_routers: int) -> list[RouterStats]:
    """Reduce the outputs of one micro-batch, one per layer, to one record per router. Layers may share one router."""
    if num_routers not in (1, len(outputs)):
        raise ValueError(f"{len(outputs)} router outputs for {num_routers} routers")
    records = [RouterStats(co_selection(output.mask), output.cutoff) for output in outputs]
    return [_reduce(records)] if num_routers == 1 else records


@torch.no_grad()
def combine(micro_batches: Sequence[Sequence[RouterStats]]) -> list[RouterStats]:
    """Reduce the records of a step, a list per micro-batch, to one record per router."""
    return [_reduce(router) for router in zip(*micro_batches, strict=True)]


def _reduce(records: Sequence[RouterStats]) -> RouterStats:
    together = torch.stack([record.co_selection for record in records]).sum(0)
    cutoffs = [record.cutoff for record in records if record.cutoff is not None]
    return RouterStats(together, torch.stack(cutoffs).mean(0) if cutoffs else None)


@torch.no_grad()
def after_step(model: nn.Module, stats: Sequence[RouterStats]) -> None:
    """Update the state of every router (thresholds, biases), once per optimiser step. Nothing else changes it."""
    for (_, router), layer in zip(routers(model), stats, strict=True):
        router.after_step(layer)


def max_violation(load: Float[Tensor, " experts"]) -> float:
    """MaxVio = (max_e load_e - mean load) / mean load. 0 is perfect balance; E - 1 means one expert gets all pairs.

    It is also E - 1 if no expert gets a pair.

    Reference: Loss-Free Balancing (arXiv 2408.15664); Expert Race, Table 2.
    """
    mean = load.float().mean()
    return float((load.max() - mean) / mean) if mean > 0 else len(load) - 1.0


def combination_usage(together: Float[Tensor, "experts experts"]) -> float:
    """Comb: percentage of the E(E-1)/2 expert pairs that make up the first 95 % of all co-selections.

    The counts of expert pairs are sorted in descending order and normalised. Pairs with a cumulative share below 95 %
    count. Comb is about 95 for uniform use, and 0 if no token has two experts.

    Reference: Expert Race, Figure 13 and Table 2.
    """
    num_experts = together.shape[0]
    upper = torch.triu_indices(num_experts, num_experts, offset=1)
    counts = together[upper[0], upper[1]].double().sort(descending=True).values
    if counts.sum() == 0:
        return 0.0
    return 100 * float((counts.cumsum(0) / counts.sum() < 0.95).double().mean())


class CollapseWatch:
    """Reports experts that get less than `share` of their fair load for `patience` steps in a row.

    A checkpoint stores `counts`, and `restore` reads them, so the count continues after a restart.
    """

    def __init__(self, names: Sequence[str], share: float = 0.01, patience: int = 50) -> None:
        self.names = names
        self.share = share
        self.patience = patience
        self._starved: np.ndarray | None = None

    @property
    def counts(self) -> list[list[int]]:
        """For each router and expert, the number of steps in a row below its share."""
        return [] if self._starved is None else self._starved.tolist()

    def restore(self, counts: Sequence[Sequence[int]]) -> None:
        """Set the counts to those of a checkpoint."""
        self._starved = np.array(counts, np.int64) if len(counts) else None

    def update(self, loads: Float[np.ndarray, "routers experts"]) -> list[str]:
        """Return one line for each expert that reaches `patience` in this step, given the load of every expert."""
        fair = loads.mean(-1, keepdims=True)
        starved = (loads < self.share * fair) | (fair == 0)
        if self._starved is None:
            self._starved = np.zeros(loads.shape, np.int64)
        self._starved = np.where(starved, self._starved + 1, 0)
        told = f"got under {self.share:.0%} of its fair share for {self.patience} steps"
        return [
            f"{self.names[router]}: expert {expert} {told}"
            for router, expert in np.argwhere(self._starved == self.patience)
        ]
