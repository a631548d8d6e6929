"""The dense feed-forward."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.nn.linear import Linear


class FeedForward(nn.Module):
    """GELU(x W1 + b1) W2 + b2, with the tanh form of GELU as in DiT.

    With `gated` it is SwiGLU instead, (SiLU(x Wg) * x W1) W2: three matrices, no biases.

    Reference: DiT; GLU Variants Improve Transformer (arXiv 2002.05202).
    """

    def __init__(self, dim: int, hidden: int, gated: bool = False) -> None:
        super().__init__()
        self.gate = Linear(dim, hidden, bias=False) if gated else None
        self.up = Linear(dim, hidden, bias=not gated)
        self.down = Linear(hidden, dim, bias=not gated)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        if self.gate is not None:
            return self.down(F.silu(self.gate(x)) * self.up(x))
        return self.down(self.up.gelu(x))
