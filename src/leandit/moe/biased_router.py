"""Token choice with a balancing bias, the usual router of large sparse transformers.

Legend: E experts, B batch, L tokens, G groups of experts.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from leandit.moe.config import ROUTERS, MoEConfig, RouterConfig
from leandit.moe.gate import GATES, renormalize
from leandit.moe.seams import RouterModule, RouterOutput, RouterStats
from leandit.nn import Linear
from leandit.ops import full_precision, linear


@ROUTERS.register
class BiasedRouterConfig(RouterConfig):
    """Scores plus a bias choose k experts; the scores alone weight them.

    DeepSeek-V3: the defaults with route_scale=2.5, num_groups=8, top_groups=4, for 8 of 256 experts. DSMoE's public
    configurations: sigmoid, route_scale=2.5, one group and a bias that stays at zero (bias_rate=0).
    """

    type: Literal["biased"] = "biased"
    gate: Literal["sigmoid", "softmax"] = "sigmoid"
    """The function from logits to scores."""
    bias_rate: float = Field(1e-3, ge=0)
    """Change of an expert's bias per optimiser step: up if its load is below the mean, down if it is above. 0 keeps the
    bias constant. DeepSeek-V3: 0.001."""
    renormalize: bool = True
    """Divide the scores of a token's experts by their sum before they weight the outputs. No effect if k is 1: the
    single weight would always be 1, and the router would not learn."""
    route_scale: float = Field(1.0, gt=0)
    """Multiplies the weights of all experts."""
    num_groups: int = Field(1, ge=1)
    """Number of groups of consecutive experts, all of the same size. A token may use experts of `top_groups` groups."""
    top_groups: int = Field(1, ge=1)
    """Number of groups that a token may use: the groups with the largest sum of their two best biased scores."""

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.top_groups > self.num_groups:
            raise ValueError(f"top_groups = {self.top_groups} is more than num_groups = {self.num_groups}")
        return self

    def check(self, moe: MoEConfig) -> None:
        """Raise ValueError if the groups are not of equal size, or if the chosen groups have fewer than k experts."""
        if moe.num_experts % self.num_groups:
            raise ValueError(f"num_experts = {moe.num_experts} is not divisible by num_groups = {self.num_groups}")
        if moe.k > (allowed := self.top_groups * moe.num_experts // self.num_groups):
            raise ValueError(
                f"k = {moe.k} is more than the {allowed} experts of {self.top_groups} groups: raise top_groups"
            )

    def build(self, moe: MoEConfig, in_dim: int, dim: int, target_dim: int | None) -> RouterModule:
        """Return the router; it has no target head."""
        return BiasedRouter(self, moe, in_dim)


class BiasedRouter(RouterModule):
    """s = gate(x W),   chosen = the k largest s_e + b_e,   weight_e = route_scale s_e / sum of the chosen s.

    The bias b affects the selection only. Once per optimiser step it moves against the load,

        b_e <- b_e + bias_rate sign(mean load - load_e),

    which balances the experts without a loss. It is a buffer, so it is in the checkpoint; forward never changes it.
    With groups, only the experts of a token's `top_groups` groups can be chosen; a group's score is the sum of its two
    best s_e + b_e. Logits are computed in fp32, also under autocast.

    Reference: Loss-Free Balancing (arXiv 2408.15664), Algorithm 1; DeepSeek-V3 (arXiv 2412.19437), section 2.1.2. In
    diffusion transformers: DSMoE (arXiv 2512.01252), LingBot-Video (arXiv 2607.07675).
    """

    bias: Tensor

    def __init__(self, config: BiasedRouterConfig, moe: MoEConfig, in_dim: int) -> None:
        super().__init__()
        self.config = config
        self.k = moe.k
        self.gate_head = Linear(in_dim, moe.num_experts, bias=False)
        self.register_buffer("bias", torch.zeros(moe.num_experts))

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> RouterOutput:
        c = self.config
        with full_precision(x.device.type):
            logits = linear(x.to(self.gate_head.weight.dtype), self.gate_head.weight)
        logits = self.decided(logits)
        scores = GATES[c.gate](logits)
        biased = self._within_groups(scores.detach() + self.bias)
        chosen, _ = self.selector(biased, strategy="token_choice", k=self.k)
        weights = renormalize(scores, chosen) if c.renormalize and self.k > 1 else scores
        return RouterOutput(logits, scores, c.route_scale * weights, chosen, chosen)

    def _within_groups(self, biased: Float[Tensor, "batch tokens experts"]) -> Float[Tensor, "batch tokens experts"]:
        """Return the biased scores, with -inf for experts outside a token's best groups."""
        c = self.config
        if c.top_groups == c.num_groups:
            return biased
        grouped_BLGE = biased.unflatten(-1, (c.num_groups, -1))
        group_BLG = grouped_BLGE.topk(min(2, grouped_BLGE.shape[-1]), dim=-1).values.sum(-1)
        allowed_BLG, _ = self.selector(group_BLG, strategy="token_choice", k=c.top_groups)
        return grouped_BLGE.masked_fill(~allowed_BLG[..., None], -torch.inf).flatten(-2)

    def most_pairs(self, num_tokens: int) -> int | None:
        """Return k for each token."""
        return num_tokens * self.k

    def after_step(self, stats: RouterStats) -> None:
        """Move the bias against the load of one optimiser step."""
        load_E = stats.load.to(self.bias)
        self.bias += self.config.bias_rate * (load_E.mean() - load_E).sign()

    def init_weights(self) -> None:
        """Set the bias to zero."""
        self.bias.zero_()
