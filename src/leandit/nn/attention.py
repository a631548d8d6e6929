"""Multi-head self-attention."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from leandit.nn.linear import Linear
from leandit.ops import attention
from leandit.ops.attention import AttentionImpl


class SelfAttention(nn.Module):
    """softmax(q kᵀ / sqrt(head_dim)) v over all tokens of a sample, with optional RMS normalisation of q and k.

    Reference: DiT (arXiv 2212.09748); qk-norm as in SD3 (arXiv 2403.03206).
    """

    def __init__(self, dim: int, heads: int, qk_norm: bool, norm_eps: float, impl: AttentionImpl) -> None:
        super().__init__()
        self.heads = heads
        self.impl = impl
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        head_dim = dim // heads
        self.q_norm = nn.RMSNorm(head_dim, eps=norm_eps) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(head_dim, eps=norm_eps) if qk_norm else nn.Identity()

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = attention(self.q_norm(q), self.k_norm(k), v, self.impl)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, dim))
