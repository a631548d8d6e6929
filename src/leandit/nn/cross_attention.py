"""Cross-attention from a picture's tokens to its text."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandit.nn.attention import join_heads, split_heads
from leandit.nn.parts import Linear
from leandit.ops import attention, row_stable_linear
from leandit.ops.attention import AttentionImpl

KeysValues = tuple[Tensor, Tensor]


class CrossAttention(nn.Module):
    """softmax(q kᵀ / sqrt(head_dim)) v with queries from a sample's tokens, keys and values from its text.

    `text_dim` is the width of the text features. `kv_heads` and `qk_norm` are as in `SelfAttention`.

    Reference: PixArt-alpha (arXiv 2310.00426), section 2.3; grouped queries as in EC-DiT (arXiv 2410.02098).
    """

    def __init__(
        self,
        dim: int,
        text_dim: int,
        heads: int,
        qk_norm: bool,
        norm_eps: float,
        impl: AttentionImpl,
        kv_heads: int | None = None,
    ) -> None:
        super().__init__()
        self.kv_heads = kv_heads or heads
        self.head_dim = dim // heads
        self.impl = impl
        self.q = Linear(dim, dim)
        self.kv = Linear(text_dim, 2 * self.kv_heads * self.head_dim)
        self.proj = Linear(dim, dim)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=norm_eps) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.head_dim, eps=norm_eps) if qk_norm else nn.Identity()

    def keys_values(self, text: Float[Tensor, "batch text_tokens text_dim"]) -> KeysValues:
        """Return keys and values, which depend only on the text; each is (batch, kv_heads, text_tokens, head_dim)."""
        # Prompts can have fewer rows than a matrix library needs to compute a row independently of their number.
        kv = row_stable_linear(text.flatten(0, 1), self.kv.weight, self.kv.bias).unflatten(0, text.shape[:2])
        k, v = split_heads(kv, self.head_dim).chunk(2, dim=1)
        return self.k_norm(k), v

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        text: Float[Tensor, "batch text_tokens text_dim"],
        text_mask: Bool[Tensor, "batch text_tokens"] | None = None,
        keys_values: KeysValues | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Attend to the text tokens whose mask is True, or to all without a mask. Every text needs at least one.

        `keys_values` are the keys and values of the text, if they are already computed.
        """
        q = split_heads(self.q(x), self.head_dim)
        k, v = self.keys_values(text) if keys_values is None else keys_values
        return self.proj(join_heads(attention(self.q_norm(q), k, v, self.impl, text_mask)))
