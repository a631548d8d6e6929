"""The threshold that replaces the race at inference, so that a sample does not depend on its neighbours."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandit.moe.strategies import STRATEGIES


class Threshold(nn.Module):
    """An exponential moving average of the smallest score that was kept in training.

        tau <- m tau + (1 - m) cutoff,     inference keeps S >= tau

    One value per expert for `bl_choice`, whose pools are experts; otherwise one for the layer, from the mean of the
    rows' cutoffs. It moves only in `update`, once per optimiser step.

    Reference: Expert Race, section on the learnable threshold, Table 3; the momentum is not in the paper.
    """

    value: Tensor

    def __init__(self, strategy: str, num_experts: int, momentum: float, init: float) -> None:
        super().__init__()
        self.per_expert = STRATEGIES[strategy].rows == "E"
        self.momentum = momentum
        self.init = init
        self.register_buffer("value", torch.full((num_experts,) if self.per_expert else (), init))

    def select(self, scores: Float[Tensor, "batch tokens experts"]) -> Bool[Tensor, "batch tokens experts"]:
        """Return the mask of the scores that reach the threshold."""
        return scores.detach() >= self.value

    def reduce(self, cutoff: Float[Tensor, " rows"]) -> Tensor:
        """Return the rows' cutoffs in the shape of the threshold."""
        return cutoff if self.per_expert else cutoff.mean()

    @torch.no_grad()
    def update(self, cutoff: Tensor) -> None:
        """Move towards the cutoff of one optimiser step, already averaged over micro-batches.

        An expert that kept nothing has the cutoff +inf, from which an average would never come back: it is left out.
        """
        moved = self.value.lerp(cutoff.to(self.value), 1 - self.momentum)
        self.value.copy_(torch.where(cutoff.isfinite(), moved, self.value))

    def init_weights(self) -> None:
        """Set the threshold to where it starts."""
        self.value.fill_(self.init)
