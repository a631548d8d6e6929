"""The record that a router hands to the dispatcher: which token goes to which expert, with what weight."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Assignment:
    """The chosen (token, expert) pairs, sorted by expert, then by token.

    `token` counts over the flattened batch, 0..B*L-1; `expert` is 0..E-1; `weight` is the gated score that
    multiplies the expert's output, and carries the gradient to the router.
    """

    token: Int[Tensor, " pairs"]
    expert: Int[Tensor, " pairs"]
    weight: Float[Tensor, " pairs"]

    @classmethod
    def from_mask(
        cls, scores: Float[Tensor, "batch tokens experts"], mask: Bool[Tensor, "batch tokens experts"]
    ) -> Assignment:
        """Return the pairs where `mask` holds, weighted by their scores."""
        num_experts = scores.shape[-1]
        expert, token = mask.reshape(-1, num_experts).T.nonzero(as_tuple=True)
        # index_select, because its gradient is a plain index_add; that of advanced indexing is much slower.
        weight = scores.reshape(-1).index_select(0, token * num_experts + expert)
        return cls(token, expert, weight)

    def load(self, num_experts: int) -> Int[Tensor, " experts"]:
        """Return the number of pairs of every expert."""
        return self.expert.bincount(minlength=num_experts)
