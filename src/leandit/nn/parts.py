"""The parts of all networks: linear map, norm, feed-forward, modulation, and the final map to patches."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.ops import linear, linear_gelu, norm_modulate, row_stable_linear


class Linear(nn.Linear):
    """torch's linear layer with uninitialised weights. The model calls `init_weights`, so weights are drawn once."""

    def reset_parameters(self) -> None:
        """Do nothing: `init_weights` sets the weights."""

    def init_weights(self) -> None:
        """Set a Xavier-uniform matrix and a zero bias."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch out"]:
        return linear(input, self.weight, self.bias)

    def gelu(self, input: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch out"]:
        """Return GELU, in the tanh form, of the result of `forward`."""
        return linear_gelu(input, self.weight, self.bias)


class FeedForward(nn.Module):
    """GELU(x W1 + b1) W2 + b2 with the tanh form of GELU. `gated`: SwiGLU, (SiLU(x Wg) * x W1) W2, without biases.

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

    `width` is w, the width of the tokens; None means d, the width of the condition.

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
    """Norm, modulation, and the zero-initialised map from tokens to patches. `condition_dim` None means `dim`."""

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
