"""The linear layer of all models, the norm of queries and keys, and the dense feed-forward."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.ops import linear, linear_gelu


class Linear(nn.Linear):
    """torch's linear layer with its weights left uninitialised: whatever it is part of calls `init_weights`.

    So nothing is drawn twice, and building on the meta device, where random draws are slow, draws nothing.
    """

    def reset_parameters(self) -> None:
        """Leave the weights to `init_weights`, which is called once."""

    def init_weights(self) -> None:
        """Xavier-uniform matrix, zero bias."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch out"]:
        return linear(input, self.weight, self.bias)

    def gelu(self, input: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch out"]:
        """Return GELU of what `forward` returns, in its tanh form."""
        return linear_gelu(input, self.weight, self.bias)


class RMSNorm(nn.RMSNorm):
    """torch's, with the weight in the dtype of the input, as its fused kernel wants it under autocast."""

    def forward(self, x: Float[Tensor, "*batch head_dim"]) -> Float[Tensor, "*batch head_dim"]:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


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
