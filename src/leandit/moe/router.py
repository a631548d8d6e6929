"""The pooled router: scores compete in pools, and a pool that spans samples has a threshold in evaluation."""

from __future__ import annotations

import math

from jaxtyping import Bool, Float
from torch import Tensor

from leandit.moe.config import MoEConfig
from leandit.moe.gate import GATES, renormalize
from leandit.moe.seams import RouterModule, RouterOutput
from leandit.moe.strategies import GROUPED, STRATEGIES, within_capacity
from leandit.moe.threshold import Threshold
from leandit.nn import Linear
from leandit.ops import full_precision, linear


class PooledRouter(RouterModule):
    """Linear(d, d) -> GELU -> Linear(d, E), and a target head Linear(d, p*p*C) that only training uses.

    Scores are gated logits. In training the best pairs win. In evaluation the same rule applies if the pool is one
    sample, and the threshold if the pool spans samples. Logits are fp32 also under autocast, because the race compares
    them across the batch. `target_dim` is the width of the target head; None means no head. `tokens` is the length of
    a sequence; 0 if it is not known.

    Reference: Expert Race, Figure 12 for the two heads.
    """

    def __init__(self, config: MoEConfig, dim: int, target_dim: int | None = None, tokens: int = 0) -> None:
        super().__init__()
        self.config = config
        in_dim = config.router_width(dim)
        self.hidden = Linear(in_dim, dim) if config.router == "mlp" else None
        self.gate_head = Linear(in_dim if self.hidden is None else dim, config.num_experts, bias=False)
        self.target_head = Linear(dim, target_dim) if config.has_target_head and target_dim is not None else None
        if STRATEGIES[config.strategy].spans_samples:
            start = (config.threshold_momentum, config.threshold_init)
            self.threshold = Threshold(config.strategy, config.num_experts, *start, tokens)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> RouterOutput:
        hidden = x if self.hidden is None else self.hidden.gelu(x)
        with full_precision(x.device.type):
            logits = linear(hidden.to(self.gate_head.weight.dtype), self.gate_head.weight)
        logits = self.decided(logits)
        scores = GATES[self.config.gate](logits)
        chosen, cutoff = self._choose(scores)
        mask = self._serve(scores, chosen)
        # GShard divides by the sum over all choices of a token, including those that find no slot.
        weights = renormalize(scores, chosen) if self.config.renormalize else scores
        target = self.target_head(hidden) if self.training and self.target_head is not None else None
        return RouterOutput(logits, scores, weights, chosen, mask, cutoff, target)

    def _choose(
        self, scores: Float[Tensor, "batch tokens experts"]
    ) -> tuple[Bool[Tensor, "batch tokens experts"], Tensor | None]:
        """Return the pairs that the strategy selects, and in training the cutoff for the threshold."""
        c = self.config
        if not self.training and self.threshold is not None and self.spans_samples:
            return self.threshold.select(scores), None
        group_tokens = self._group_tokens if c.strategy in GROUPED else None
        k = c.experts_per_token(self.training)
        mask, row_cutoff = self.selector(scores, strategy=c.strategy, k=k, group_tokens=group_tokens)
        return mask, None if self.threshold is None or not self.training else self.threshold.reduce(row_cutoff)

    def _serve(
        self, scores: Float[Tensor, "batch tokens experts"], chosen: Bool[Tensor, "batch tokens experts"]
    ) -> Bool[Tensor, "batch tokens experts"]:
        """Return the chosen pairs that find a slot; without a capacity these are all."""
        c = self.config
        factor = c.capacity_factor if self.training else c.inference_capacity_factor
        if factor is None or c.strategy in GROUPED:
            return chosen
        return within_capacity(scores, chosen, k=c.k, capacity_factor=factor, group_tokens=self._group_tokens)

    def most_pairs(self, num_tokens: int) -> int | None:
        """Return an upper bound on the pairs of `num_tokens` tokens; None if a threshold decides."""
        if not self.training and self.spans_samples:
            return None
        return math.ceil(num_tokens * self.config.experts_per_token(self.training))

    @property
    def spans_samples(self) -> bool:
        """Whether a threshold decides in evaluation, because the race in training spans samples."""
        return self.threshold is not None and self.config.inference == "threshold"

    @property
    def _group_tokens(self) -> int | None:
        return self.config.group_tokens if self.training else self.config.inference_group_tokens
