"""Scaled dot-product attention with a choice of backend.

Legend: B batch, H heads, L tokens, D head dim.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

AttentionImpl = Literal["auto", "math", "sdpa"]

# On CPUs the fused kernel's bf16 backward is several times slower than plain products at these lengths.
_MATH_MAX_TOKENS = 256


def attention(
    q_BHLD: Float[Tensor, "batch heads tokens head_dim"],
    k_BHLD: Float[Tensor, "batch heads keys head_dim"],
    v_BHLD: Float[Tensor, "batch heads keys head_dim"],
    impl: AttentionImpl = "auto",
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Return softmax(q kᵀ / sqrt(head_dim)) v.

    `math` is plain matrix products, `sdpa` torch's fused kernel, `auto` takes `math` for short sequences in low
    precision on a CPU and `sdpa` elsewhere.
    """
    if impl == "auto":
        low = torch.is_autocast_enabled("cpu") or q_BHLD.dtype == torch.bfloat16
        short = max(q_BHLD.shape[-2], k_BHLD.shape[-2]) <= _MATH_MAX_TOKENS
        impl = "math" if q_BHLD.device.type == "cpu" and low and short else "sdpa"
    if impl == "sdpa":
        return F.scaled_dot_product_attention(q_BHLD, k_BHLD, v_BHLD)
    scores_BHLL = (q_BHLD * q_BHLD.shape[-1] ** -0.5) @ k_BHLD.transpose(-1, -2)
    return scores_BHLL.softmax(-1) @ v_BHLD
