"""Attention by plain products, by torch's kernel and by a loop in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from leandit.ops import attention
from leandit.ops.attention import AttentionImpl


def qkv(tokens: int = 5, keys: int = 7, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 3, length, 4, generator=generator, dtype=dtype, requires_grad=True)
        for length in (tokens, keys, keys)
    ]


def loop(q: Tensor, k: Tensor, v: Tensor) -> np.ndarray:
    q_np, k_np, v_np = (tensor.detach().numpy() for tensor in (q, k, v))
    out = np.zeros_like(q_np)
    for b, h, i in np.ndindex(q_np.shape[:3]):
        exponent = np.exp([q_np[b, h, i] @ key / np.sqrt(q_np.shape[-1]) for key in k_np[b, h]])
        out[b, h, i] = sum(p * value for p, value in zip(exponent / exponent.sum(), v_np[b, h], strict=True))
    return out


@pytest.mark.parametrize("impl", ["math", "sdpa", "auto"])
def test_equals_the_loop(impl: AttentionImpl) -> None:
    args = qkv()
    np.testing.assert_allclose(attention(*args, impl).detach().numpy(), loop(*args), rtol=1e-10, atol=1e-12)


def test_both_backends_give_the_same_gradients() -> None:
    args = qkv()
    grad = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    math, sdpa = (torch.autograd.grad(attention(*args, impl), args, grad) for impl in ("math", "sdpa"))
    for mine, theirs in zip(math, sdpa, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("tokens", [384, 385])
def test_auto_in_bf16_is_close_to_float64(tokens: int) -> None:
    args = [tensor.detach() for tensor in qkv(tokens, tokens)]
    low = attention(*(tensor.bfloat16() for tensor in args))
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), attention(*args, "math"), rtol=0.05, atol=0.02)


def test_large_scores_stay_finite() -> None:
    q, k, v = (tensor.detach() for tensor in qkv())
    assert attention(100 * q, 100 * k, v, "math").isfinite().all()
