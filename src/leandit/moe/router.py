"""The router decides which expert computes which token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandit.moe.assignment import Assignment
from leandit.moe.capacity import within_capacity
from leandit.moe.config import MoEConfig
from leandit.moe.gate import GATES, renormalize
from leandit.moe.strategies import GROUPED, STRATEGIES, select_mask
from leandit.moe.threshold import Threshold
from leandit.nn import Linear
from leandit.ops import kept, linear


@dataclass(frozen=True)
class RouterOutput:
    """What a router decided, and what losses and statistics need of it. Nothing in it is state.

    `scores` are gated logits, which the selection compares; `weights`, what multiplies an expert's output, are the
    same, renormalised where configured. `mask` holds the pairs that are computed, so not those that a capacity dropped.
    `cutoff` is the smallest score kept in training, shaped as the layer's threshold; None where selection needs no
    threshold and in evaluation. `target` is the target head's prediction, per token one flattened patch; None in
    evaluation and without per-layer regularisation.
    """

    logits: Float[Tensor, "batch tokens experts"]
    scores: Float[Tensor, "batch tokens experts"]
    weights: Float[Tensor, "batch tokens experts"]
    mask: Bool[Tensor, "batch tokens experts"]
    cutoff: Tensor | None
    target: Float[Tensor, "batch tokens patch_dim"] | None

    @property
    def assignment(self) -> Assignment:
        """The same as a list of pairs with their weights."""
        return Assignment.from_mask(self.weights, self.mask)


class Router(nn.Module):
    """Linear(d, d) -> GELU -> Linear(d, E), beside it a target head Linear(d, p*p*C) that only training uses.

    Scores are gated logits. In training the best pairs win (`select`); in evaluation the same rule applies if it
    looks at one sample only, and the threshold if its pool spans samples. Logits are computed in fp32 whatever the
    autocast dtype, since the race compares them across the whole batch.

    Reference: Expert Race, Figure 12 for the two heads.
    """

    def __init__(self, config: MoEConfig, dim: int, target_dim: int) -> None:
        super().__init__()
        self.config = config
        self.hidden = Linear(dim, dim) if config.router == "mlp" else None
        self.gate_head = Linear(dim, config.num_experts, bias=False)
        self.target_head = Linear(dim, target_dim) if config.per_layer_regularisation else None
        # Set when layers are computed again in the backward pass, which must decide as the forward pass did.
        self.keep_logits = False
        self.spans_samples = STRATEGIES[config.strategy].spans_samples
        if self.spans_samples:
            self.threshold = Threshold(
                config.strategy, config.num_experts, config.threshold_momentum, config.threshold_init
            )

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> RouterOutput:
        hidden = x if self.hidden is None else self.hidden.gelu(x)
        with torch.autocast(x.device.type, enabled=False):
            logits = linear(hidden.to(self.gate_head.weight.dtype), self.gate_head.weight)
        if self.keep_logits and self.training:
            logits = kept(logits)
        scores = GATES[self.config.gate](logits)
        chosen, cutoff = self._choose(scores)
        mask = self._serve(scores, chosen)
        # GShard divides by the sum over what a token chose, whether or not all of it finds a slot.
        weights = renormalize(scores, chosen) if self.config.renormalize else scores
        target = self.target_head(hidden) if self.training and self.target_head is not None else None
        return RouterOutput(logits, scores, weights, mask, cutoff, target)

    def _choose(
        self, scores: Float[Tensor, "batch tokens experts"]
    ) -> tuple[Bool[Tensor, "batch tokens experts"], Tensor | None]:
        """Return the pairs that the strategy selects, and in training the cutoff that the threshold follows."""
        c = self.config
        if not self.training and self.spans_samples:
            return self.threshold.select(scores), None
        group_tokens = self._group_tokens if c.strategy in GROUPED else None
        mask, row_cutoff = select_mask(scores, strategy=c.strategy, k=c.k, group_tokens=group_tokens)
        return mask, self.threshold.reduce(row_cutoff) if self.spans_samples else None

    def _serve(
        self, scores: Float[Tensor, "batch tokens experts"], chosen: Bool[Tensor, "batch tokens experts"]
    ) -> Bool[Tensor, "batch tokens experts"]:
        """Return the chosen pairs that find a slot: all of them without a capacity."""
        c = self.config
        factor = c.capacity_factor if self.training else c.inference_capacity_factor
        if factor is None:
            return chosen
        return within_capacity(scores, chosen, k=c.k, capacity_factor=factor, group_tokens=self._group_tokens)

    def most_pairs(self, num_tokens: int) -> int | None:
        """Return a bound on the pairs of so many tokens; None where a threshold decides, which knows no bound."""
        return None if not self.training and self.spans_samples else num_tokens * self.config.k

    @property
    def _group_tokens(self) -> int | None:
        return self.config.group_tokens if self.training else self.config.inference_group_tokens
