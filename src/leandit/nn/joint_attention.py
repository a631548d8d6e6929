"""Attention over text and image tokens together, with separate weights or one set for both."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.nn.parts import Linear
from leandit.nn.rope import rotate
from leandit.ops import attention
from leandit.ops.attention import AttentionImpl

Heads = Float[Tensor, "batch heads tokens head_dim"]


class RMSNorm(nn.RMSNorm):
    """torch's RMSNorm with its weight cast to the dtype of the input: the fused kernel needs this under autocast."""

    def forward(self, x: Float[Tensor, "*batch head_dim"]) -> Float[Tensor, "*batch head_dim"]:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class _Stream(nn.Module):
    """The attention weights of one stream of tokens: maps to query, key, value and output, and norms of q and k."""

    def __init__(self, dim: int, heads: int, qk_norm: bool, norm_eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.q_norm = RMSNorm(dim // heads, eps=norm_eps) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(dim // heads, eps=norm_eps) if qk_norm else nn.Identity()

    def split(self, x: Float[Tensor, "batch tokens dim"]) -> tuple[Heads, Heads, Heads]:
        """Return queries, keys and values by heads."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.q_norm(q), self.k_norm(k), v

    def merge(self, y: Heads) -> Float[Tensor, "batch tokens dim"]:
        """Map the results of the heads to the width of the stream."""
        return self.proj(y.transpose(1, 2).flatten(-2))


class JointAttention(nn.Module):
    """softmax(q kᵀ / sqrt(head_dim)) v over [text ; image]. Each stream has its own weights.

    `mask` is over [text ; image]; keys whose mask is False are not used. `image_only` is for a layer whose text output
    is not read: the text then has only keys and values, and None is returned for it.

    Reference: SD3 (arXiv 2403.03206), the MM-DiT block.
    """

    def __init__(self, dim: int, heads: int, qk_norm: bool, norm_eps: float, impl: AttentionImpl) -> None:
        super().__init__()
        self.impl = impl
        self.text = _Stream(dim, heads, qk_norm, norm_eps)
        self.image = _Stream(dim, heads, qk_norm, norm_eps)

    def forward(
        self,
        text: Float[Tensor, "batch text_tokens dim"],
        image: Float[Tensor, "batch tokens dim"],
        mask: Bool[Tensor, "batch all_tokens"] | None = None,
        image_only: bool = False,
    ) -> tuple[Float[Tensor, "batch text_tokens dim"] | None, Float[Tensor, "batch tokens dim"]]:
        pairs = zip(self.text.split(text), self.image.split(image), strict=True)
        q, k, v = (torch.cat(pair, dim=2) for pair in pairs)
        if image_only:
            return None, self.image.merge(attention(q[:, :, text.shape[1] :], k, v, self.impl, mask))
        y_text, y_image = attention(q, k, v, self.impl, mask).split([text.shape[1], image.shape[1]], dim=2)
        return self.text.merge(y_text), self.image.merge(y_image)


class SingleStreamAttention(_Stream):
    """Attention over [text ; image] with one set of weights. Image tokens are rotated by position, text is not.

    `rotation` (see `rope_2d`) has one angle set per image token; these are the last tokens. `image_only` is for a layer
    whose text output is not read: only image tokens have queries, and only they are returned.

    Reference: DiT-Air (arXiv 2503.10618), Figure 3. The paper does not state the positions of text tokens under 2-D
    RoPE. Without rotation all text is at the image's origin, and only the text encoder represents its order.
    """

    def __init__(self, dim: int, heads: int, qk_norm: bool, norm_eps: float, impl: AttentionImpl) -> None:
        super().__init__(dim, heads, qk_norm, norm_eps)
        self.impl = impl

    def forward(
        self,
        x: Float[Tensor, "batch all_tokens dim"],
        rotation: Float[Tensor, "2 tokens half_head_dim"],
        mask: Bool[Tensor, "batch all_tokens"] | None = None,
        image_only: bool = False,
    ) -> Float[Tensor, "batch out_tokens dim"]:
        q, k, v = self.split(x)
        # Text has angle 0: rotating all tokens costs less than splitting and joining queries and keys.
        still = F.pad(rotation, (0, 0, x.shape[1] - rotation.shape[1], 0))
        still[0, : -rotation.shape[1]] = 1.0
        q, k = rotate(q, still), rotate(k, still)
        q = q[:, :, -rotation.shape[1] :] if image_only else q
        return self.merge(attention(q, k, v, self.impl, mask))
