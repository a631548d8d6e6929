"""Multi-head self-attention."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from leandit.nn.parts import Linear
from leandit.ops import attention
from leandit.ops.attention import AttentionImpl


class SelfAttention(nn.Module):
    """softmax(q kᵀ / sqrt(head_dim)) v over all tokens of a sample, with optional RMS normalisation of q and k.

    If `kv_heads` is below `heads`, each key and value head serves heads / kv_heads consecutive query heads.

    Reference: DiT (arXiv 2212.09748); qk-norm as in SD3 (arXiv 2403.03206); grouped queries as in GQA
    (arXiv 2305.13245).
    """

    def __init__(
        self, dim: int, heads: int, qk_norm: bool, norm_eps: float, impl: AttentionImpl, kv_heads: int | None = None
    ) -> None:
        super().__init__()
        self.heads = heads
        self.kv_heads = kv_heads or heads
        self.head_dim = dim // heads
        self.impl = impl
        self.qkv = Linear(dim, (heads + 2 * self.kv_heads) * self.head_dim)
        self.proj = Linear(dim, dim)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=norm_eps) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.head_dim, eps=norm_eps) if qk_norm else nn.Identity()

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        qkv = split_heads(self.qkv(x), self.head_dim)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        return self.proj(join_heads(attention(self.q_norm(q), self.k_norm(k), v, self.impl)))


def split_heads(x: Float[Tensor, "batch tokens dim"], head_dim: int) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Return one sequence of tokens per head."""
    return x.unflatten(2, (-1, head_dim)).transpose(1, 2)


def join_heads(x: Float[Tensor, "batch heads tokens head_dim"]) -> Float[Tensor, "batch tokens dim"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)
