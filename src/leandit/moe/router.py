"""The router decides which expert computes which token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.moe.assignment import Assignment
from leandit.moe.config import MoEConfig
from leandit.moe.gate import GATES
from leandit.moe.strategies import STRATEGIES, select_mask
from leandit.moe.threshold import Threshold
from leandit.nn import Linear


@dataclass(frozen=True)
class RouterOutput:
    """What a router decided, and what losses and statistics need of it. Nothing in it is state.

    `cutoff` is the smallest score kept in training, shaped as the layer's threshold; None where selection needs no
    threshold and in evaluation. `target` is the target head's prediction, per token one flattened patch; None in
    evaluation and without per-layer regularisation.
    """

    logits: Float[Tensor, "batch tokens experts"]
    scores: Float[Tensor, "batch tokens experts"]
    mask: Bool[Tensor, "batch tokens experts"]
    assignment: Assignment
    cutoff: Tensor | None
    target: Float[Tensor, "batch tokens patch_dim"] | None


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
        self.spans_samples = STRATEGIES[config.strategy].spans_samples
        if self.spans_samples:
            self.threshold = Threshold(
                config.strategy, config.num_experts, config.threshold_momentum, config.threshold_init
            )

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> RouterOutput:
        hidden = x if self.hidden is None else F.gelu(self.hidden(x), approximate="tanh")
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(hidden.to(self.gate_head.weight.dtype), self.gate_head.weight)
        scores = GATES[self.config.gate](logits)
        cutoff = None
        if self.training or not self.spans_samples:
            c = self.config
            group_tokens = c.group_tokens if self.training else c.inference_group_tokens
            mask, row_cutoff = select_mask(scores, strategy=c.strategy, k=c.k, group_tokens=group_tokens)
            if self.training and self.spans_samples:
                cutoff = self.threshold.reduce(row_cutoff)
        else:
            mask = self.threshold.select(scores)
        target = self.target_head(hidden) if self.training and self.target_head is not None else None
        return RouterOutput(logits, scores, mask, Assignment.from_mask(scores, mask), cutoff, target)
