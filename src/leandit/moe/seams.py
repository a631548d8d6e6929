"""The three seams of a MoE layer: the router decides, the selector runs the race, the dispatcher moves tokens.

Legend: B batch, L tokens of a sample, T = B L tokens of the batch, E experts, D width, R rows sorted by expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandit.moe.strategies import select_mask
from leandit.moe.threshold import Threshold
from leandit.nn import kept


@dataclass(frozen=True)
class RouterOutput:
    """A router's decision, and what losses and statistics need. It contains no state.

    `scores` are gated logits; `weights` multiply the experts' outputs and carry the gradient to the router. `chosen`
    are the pairs that the selection kept; `mask` are the computed pairs, without those that a capacity dropped.
    `cutoff` is the smallest kept score, in the shape of the threshold; None in evaluation and without a threshold.
    `target` is the target head's prediction, one flattened patch per token; None in evaluation and without the head.
    """

    logits: Float[Tensor, "batch tokens experts"]
    scores: Float[Tensor, "batch tokens experts"]
    weights: Float[Tensor, "batch tokens experts"]
    chosen: Bool[Tensor, "batch tokens experts"]
    mask: Bool[Tensor, "batch tokens experts"]
    cutoff: Tensor | None = None
    target: Float[Tensor, "batch tokens patch_dim"] | None = None


@dataclass(frozen=True)
class RouterStats:
    """Statistics of one router over its layers and the micro-batches of a step: sums of pairs, mean of the cutoff."""

    co_selection: Float[Tensor, "experts experts"]
    cutoff: Tensor | None = None

    @property
    def load(self) -> Float[Tensor, " experts"]:
        """Pairs per expert."""
        return self.co_selection.diagonal()


@runtime_checkable
class Selector(Protocol):
    """Runs the race among scores. A race over all ranks has the same signature."""

    def __call__(
        self,
        scores_BLE: Float[Tensor, "batch tokens experts"],
        /,
        *,
        strategy: str,
        k: int | float,
        group_tokens: int | None = None,
    ) -> tuple[Bool[Tensor, "batch tokens experts"], Float[Tensor, " rows"]]:
        """Return the mask of the winning pairs, and the smallest kept score of each row of `strategy`."""


ExpertRows = Callable[[Tensor, Tensor], Tensor]
"""(x_RD, ends_E) -> y_RD: the experts on rows sorted by expert. The rows of expert e end at ends_E[e]."""


@runtime_checkable
class Dispatcher(Protocol):
    """Moves tokens to their experts, and results back. Without one the fused operator computes locally."""

    def __call__(
        self,
        x_TD: Float[Tensor, "all_tokens dim"],
        weight_TE: Float[Tensor, "all_tokens experts"],
        mask_TE: Bool[Tensor, "all_tokens experts"],
        pairs: int | None,
        rows: ExpertRows,
        /,
    ) -> Float[Tensor, "all_tokens dim"]:
        """Return sum_e mask_te weight_te FFN_e(x_t). `pairs` is an upper bound on the pairs, if known.

        Apply the weights after the rows have come back: the router's gradient needs them on its device.
        """


class RouterModule(nn.Module):
    """The base class of all routers: `router(x)` returns a RouterOutput, and only `after_step` changes its state.

    A new router is one file: a `RouterConfig` with a `type` tag, and the RouterModule that its `build` returns. Its
    buffers are in the checkpoint. `selector` runs its races.
    """

    gate_head: nn.Linear
    """The map to logits, with one row per expert. The probe compares experts by these rows."""

    def __init__(self) -> None:
        super().__init__()
        self.selector: Selector = select_mask
        self.threshold: Threshold | None = None
        # True if the backward pass computes layers again: its decisions must equal those of the forward pass.
        self.keep_logits = False

    @property
    def spans_samples(self) -> bool:
        """Whether a threshold decides in evaluation, because the race in training spans samples."""
        return self.threshold is not None

    def decided(self, logits: Float[Tensor, "batch tokens experts"]) -> Float[Tensor, "batch tokens experts"]:
        """Return the logits for the decision, kept if the layer is computed again. Call it once in `forward`."""
        return kept(logits) if self.keep_logits and self.training else logits

    def most_pairs(self, num_tokens: int) -> int | None:
        """Return an upper bound on the pairs of `num_tokens` tokens; None if unknown."""
        return None

    def after_step(self, stats: RouterStats) -> None:
        """Move the threshold, if the router has one, towards the cutoff of one optimiser step."""
        if self.threshold is not None and stats.cutoff is not None:
            self.threshold.update(stats.cutoff)

    def init_weights(self) -> None:
        """Set the parameters outside `Linear` and `Threshold` modules; those are set before."""


def routers(model: nn.Module) -> Iterable[tuple[str, RouterModule]]:
    """Yield (name, router) in order of depth. A router that all layers share appears once."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, RouterModule))
