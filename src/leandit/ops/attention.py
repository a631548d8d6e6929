"""Scaled dot-product attention with a choice of backend.

Legend: B batch, H heads, G heads of keys and values, L tokens, S keys, D head dim.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

AttentionImpl = Literal["auto", "math", "sdpa"]

# On CPUs the bf16 backward pass of the fused kernel takes about twice as long as plain products, and for short
# sequences even longer. Above this length (256 picture tokens and 128 text tokens) plain products need too much memory.
_MATH_MAX_TOKENS = 384


def attention(
    q_BHLD: Float[Tensor, "batch heads tokens head_dim"],
    k_BGSD: Float[Tensor, "batch kv_heads keys head_dim"],
    v_BGSD: Float[Tensor, "batch kv_heads keys head_dim"],
    impl: AttentionImpl = "auto",
    mask_BS: Bool[Tensor, "batch keys"] | None = None,
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Return softmax(q kᵀ / sqrt(head_dim)) v over the keys whose mask is True, or over all keys without a mask.

    If there are fewer key heads than query heads, each key head serves heads / kv_heads consecutive query heads
    (grouped-query attention). Every row of the mask needs at least one True. `math` is plain matrix products, `sdpa`
    is torch's fused kernel. `auto` is `math` for short sequences in low precision on a CPU, and `sdpa` otherwise.
    """
    if k_BGSD.shape[1] != q_BHLD.shape[1]:
        repeats = q_BHLD.shape[1] // k_BGSD.shape[1]
        k_BGSD, v_BGSD = k_BGSD.repeat_interleave(repeats, 1), v_BGSD.repeat_interleave(repeats, 1)
    if impl == "auto":
        low = torch.is_autocast_enabled("cpu") or q_BHLD.dtype == torch.bfloat16
        short = max(q_BHLD.shape[-2], k_BGSD.shape[-2]) <= _MATH_MAX_TOKENS
        impl = "math" if q_BHLD.device.type == "cpu" and low and short else "sdpa"
    mask_B11S = None if mask_BS is None else mask_BS[:, None, None]
    if impl == "sdpa":
        return F.scaled_dot_product_attention(q_BHLD, k_BGSD, v_BGSD, mask_B11S)
    scores_BHLS = (q_BHLD * q_BHLD.shape[-1] ** -0.5) @ k_BGSD.transpose(-1, -2)
    if mask_B11S is not None:
        scores_BHLS = scores_BHLS.masked_fill(~mask_B11S, -torch.inf)
    return scores_BHLS.softmax(-1) @ v_BGSD
