"""The parts that all networks are made of: linear map, norm, feed-forward, modulation, and the final map to patches."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.ops import linear, linear_gelu, norm_modulate, row_stable_linear


class Linear(nn.Linear):
    """torch's linear layer with uninitialised weights: the model calls `init_weights`, so nothing is drawn twice."""

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


class FeedForward(nn.Module):
    """GELU(x W1 + b1) W2 + b2 with the tanh form of GELU; `gated` is SwiGLU, (SiLU(x Wg) * x W1) W2, without biases.

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


class AdaLN(nn.Module):
    """SiLU -> Linear(d, n w): n modulation vectors per sample, zero at the start (AdaLN-Zero).

    `width` is w, that of the tokens; None is d, that of the condition.

    Reference: DiT (arXiv 2212.09748), section 3.2.
    """

    def __init__(self, dim: int, num_vectors: int, width: int | None = None) -> None:
        super().__init__()
        self.num_vectors = num_vectors
        self.linear = Linear(dim, num_vectors * (width or dim))

    def forward(self, condition: Float[Tensor, "batch dim"]) -> tuple[Float[Tensor, "batch width"], ...]:
        out = row_stable_linear(F.silu(condition), self.linear.weight, self.linear.bias)
        return out.chunk(self.num_vectors, dim=-1)


class FinalLayer(nn.Module):
    """Norm, modulation, and the zero-initialised map from tokens to patches; `condition_dim` is `dim` if None."""

    def __init__(self, dim: int, patch_dim: int, norm_eps: float, condition_dim: int | None = None) -> None:
        super().__init__()
        self.norm_eps = norm_eps
        self.adaln = AdaLN(condition_dim or dim, 2, dim)
        self.linear = Linear(dim, patch_dim)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], condition: Float[Tensor, "batch condition_dim"]
    ) -> Float[Tensor, "batch tokens patch_dim"]:
        shift, scale = self.adaln(condition)
        return self.linear(norm_modulate(x, shift, scale, self.norm_eps))
