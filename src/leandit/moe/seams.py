"""The three seams of a MoE layer: the router decides, the selector runs the race, the dispatcher moves tokens.

What runs over several processes is put in from outside, as `router.selector` and `layer.dispatcher`.

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
    """What a router decided, and what losses and statistics need of it. Nothing in it is state.

    `scores` are gated logits; `weights` multiply the experts' outputs and carry the gradient to the router. `chosen`
    holds the pairs that the selection kept, `mask` those that are computed: without those that a capacity dropped.
    `cutoff` is the smallest score kept, shaped as the router's threshold; None in evaluation and without a threshold.
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
    """One router: pair counts summed, and the cutoff averaged, over its layers and the micro-batches of a step."""

    co_selection: Float[Tensor, "experts experts"]
    cutoff: Tensor | None = None

    @property
    def load(self) -> Float[Tensor, " experts"]:
        """Pairs per expert."""
        return self.co_selection.diagonal()


@runtime_checkable
class Router(Protocol):
    """Decides which expert computes which token, with what weight."""

    def __call__(self, x_BLD: Float[Tensor, "batch tokens dim"], /) -> RouterOutput:
        """Return the decision for these tokens; it changes no state."""

    def most_pairs(self, num_tokens: int) -> int | None:
        """Return a bound on the pairs of `num_tokens` tokens, which spares counting them; None if there is none."""

    def after_step(self, stats: RouterStats) -> None:
        """Move the router's state by the statistics of one optimiser step: the only place that changes it."""


@runtime_checkable
class Selector(Protocol):
    """Runs the race among scores; one that is global over ranks has the same signature."""

    def __call__(
        self,
        scores_BLE: Float[Tensor, "batch tokens experts"],
        /,
        *,
        strategy: str,
        k: int,
        group_tokens: int | None = None,
    ) -> tuple[Bool[Tensor, "batch tokens experts"], Float[Tensor, " rows"]]:
        """Return the mask of the pairs that win, and the smallest kept score of each row of `strategy`."""


ExpertRows = Callable[[Tensor, Tensor], Tensor]
"""(x_RD, ends_E) -> y_RD: the experts on rows sorted by expert, those of expert e up to row ends_E[e]."""


@runtime_checkable
class Dispatcher(Protocol):
    """Brings tokens to their experts and the results back; without one the fused operator does both at home."""

    def __call__(
        self,
        x_TD: Float[Tensor, "all_tokens dim"],
        weight_TE: Float[Tensor, "all_tokens experts"],
        mask_TE: Bool[Tensor, "all_tokens experts"],
        pairs: int | None,
        rows: ExpertRows,
        /,
    ) -> Float[Tensor, "all_tokens dim"]:
        """Return sum_e mask_te weight_te FFN_e(x_t), with `pairs` a bound on the pairs, if one is known.

        Multiply the weights after the rows have come back: the router's gradient needs them at home.
        """


class RouterModule(nn.Module):
    """The base class of all routers: a module that is a `Router`, which `leandit.moe.routers` finds in a model.

    A new router is one file: a `RouterConfig` with a `type` tag, and a RouterModule that its `build` returns. Its
    buffers belong to the checkpoint. `selector` runs its races.
    """

    gate_head: nn.Linear
    """The map to logits, one row for each expert; the probe compares experts by these rows."""

    def __init__(self) -> None:
        super().__init__()
        self.selector: Selector = select_mask
        self.threshold: Threshold | None = None
        # Set if layers are computed again in the backward pass, which must decide as the forward pass did.
        self.keep_logits = False

    @property
    def spans_samples(self) -> bool:
        """Whether a threshold decides in evaluation, because the race in training is between samples."""
        return self.threshold is not None

    def decided(self, logits: Float[Tensor, "batch tokens experts"]) -> Float[Tensor, "batch tokens experts"]:
        """Return the logits that decide, kept if the layer is computed again; call it once in `forward`."""
        return kept(logits) if self.keep_logits and self.training else logits

    def most_pairs(self, num_tokens: int) -> int | None:
        """Return a bound on the pairs of `num_tokens` tokens; None if there is none."""
        return None

    def after_step(self, stats: RouterStats) -> None:
        """Move the threshold, if there is one, towards the cutoff of one optimiser step."""
        if self.threshold is not None and stats.cutoff is not None:
            self.threshold.update(stats.cutoff)

    def init_weights(self) -> None:
        """Set what is neither in a `Linear` nor in a `Threshold`; called after these are set."""


def routers(model: nn.Module) -> Iterable[tuple[str, RouterModule]]:
    """Yield (name, router) in order of depth; one router for all layers if these share it."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, RouterModule))
