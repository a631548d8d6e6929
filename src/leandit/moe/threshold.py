"""The threshold that replaces the race at inference, so that a sample does not depend on its neighbours."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandit.moe.strategies import STRATEGIES


class Threshold(nn.Module):
    """An exponential moving average of the smallest kept score in training.

        tau <- m tau + (1 - m) cutoff,     inference keeps S >= tau

    There is one value per row: per expert for `bl_choice`, per token for `be_choice` if `tokens` is known, else one for
    the layer. A sequence of another length, such as a larger picture, uses the mean. Only `update` changes the value,
    once per optimiser step.

    Reference: Expert Race, section on the learnable threshold, Table 3; the momentum is not in the paper.
    """

    value: Tensor

    def __init__(self, strategy: str, num_experts: int, momentum: float, init: float, tokens: int = 0) -> None:
        super().__init__()
        self.rows = STRATEGIES[strategy].rows
        self.momentum, self.init = momentum, init
        length = {"E": num_experts, "L": tokens}.get(self.rows)
        self.register_buffer("value", torch.full((length,) if length else (), init))

    def select(self, scores: Float[Tensor, "batch tokens experts"]) -> Bool[Tensor, "batch tokens experts"]:
        """Return the mask of the scores that reach the threshold."""
        value = self.value
        if self.rows == "L" and value.ndim:
            value = value[:, None] if len(value) == scores.shape[1] else value.mean()
        return scores.detach() >= value

    def reduce(self, cutoff: Float[Tensor, " rows"]) -> Tensor:
        """Return the rows' cutoffs in the shape of the threshold, or their mean if the number of rows differs."""
        return cutoff if cutoff.shape == self.value.shape else cutoff.mean().expand_as(self.value)

    @torch.no_grad()
    def update(self, cutoff: Tensor) -> None:
        """Move towards the mean cutoff of one optimiser step. Rows that kept nothing have +inf and do not move."""
        moved = self.value.lerp(cutoff.to(self.value), 1 - self.momentum)
        self.value.copy_(torch.where(cutoff.isfinite(), moved, self.value))

    def init_weights(self) -> None:
        """Set the threshold to its initial value."""
        self.value.fill_(self.init)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Accept one value for all rows, as in older checkpoints of `be_choice`."""
        if prefix + "value" in state and not state[prefix + "value"].ndim:
            state[prefix + "value"] = state[prefix + "value"].expand_as(self.value)
        super()._load_from_state_dict(state, prefix, *rest)
