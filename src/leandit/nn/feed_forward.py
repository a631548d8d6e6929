"""The dense feed-forward."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.nn.linear import Linear


class FeedForward(nn.Module):
    """GELU(x W1 + b1) W2 + b2, with the tanh form of GELU as in DiT."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = Linear(dim, hidden)
        self.down = Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return self.down(F.gelu(self.up(x), approximate="tanh"))
