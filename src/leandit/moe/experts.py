"""The experts compute: many small feed-forwards with stacked weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.ops import grouped_linear


class Experts(nn.Module):
    """FFN_e(x) = GELU(x W1_e + b1_e) W2_e + b2_e for e = 1..E; plain two-matrix GELU, no gating unit.

    Reference: Expert Race, section on the architecture (sizes confirm two matrices per expert).
    """

    def __init__(self, num_experts: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(num_experts, dim, hidden))
        self.b1 = nn.Parameter(torch.empty(num_experts, hidden))
        self.w2 = nn.Parameter(torch.empty(num_experts, hidden, dim))
        self.b2 = nn.Parameter(torch.empty(num_experts, dim))

    def init_weights(self) -> None:
        """Xavier-uniform for each expert as for a dense layer of its size, zero biases."""
        for weight in (self.w1, self.w2):
            bound = (6 / (weight.shape[1] + weight.shape[2])) ** 0.5
            nn.init.uniform_(weight, -bound, bound)
        nn.init.zeros_(self.b1)
        nn.init.zeros_(self.b2)

    def forward(self, x: Float[Tensor, "pairs dim"], counts: Sequence[int]) -> Float[Tensor, "pairs dim"]:
        """Compute every pair with its expert; rows are sorted by expert, `counts[e]` of them for expert e."""
        hidden = F.gelu(grouped_linear(x, self.w1, self.b1, counts), approximate="tanh")
        return grouped_linear(hidden, self.w2, self.b2, counts)
