"""Adaptive layer normalisation: a condition vector shifts, scales and gates."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.nn.linear import Linear
from leandit.ops import norm_modulate, row_stable_linear


class AdaLN(nn.Module):
    """SiLU -> Linear(d, n w): n modulation vectors per sample, zero at the start (AdaLN-Zero).

    `width` is w, that of the tokens; null is d, that of the condition.

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
    """Norm, modulation, and the zero-initialised map from tokens to patches.

    `condition_dim` is the width of the condition; null is `dim`, that of the tokens.
    """

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
