"""Gather and scatter against the incidence matrix and against plain loops."""

from __future__ import annotations

import torch

from leandit.ops import gather_pairs, scatter_pairs
from leandit.ops.permute import scatter_pairs_reference

TOKEN = torch.tensor([4, 0, 0, 2, 4, 4, 1])  # token 3 has no pair, token 4 has three


def test_gather_returns_each_pairs_token() -> None:
    x = torch.randn(5, 3)
    assert gather_pairs(x, TOKEN).tolist() == [x[token].tolist() for token in TOKEN.tolist()]


def test_scatter_equals_the_reference_with_gradients() -> None:
    y = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, dtype=torch.float64, requires_grad=True)
    out, expected = scatter_pairs(y, TOKEN, weight, 5), scatter_pairs_reference(y, TOKEN, weight, 5)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    assert not out[3].any()
    grad = torch.randn_like(out)
    for mine, theirs in zip(
        torch.autograd.grad(out, (y, weight), grad), torch.autograd.grad(expected, (y, weight), grad), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_gradients_equal_finite_differences() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: scatter_pairs(gather_pairs(x, TOKEN) ** 2, TOKEN, w, 5), (x, weight))


def test_scatter_sums_in_the_weights_precision() -> None:
    """256 + 1 is lost in bf16, so a sum kept in bf16 would stay at 256."""
    y = torch.tensor([[256.0], [1.0]], dtype=torch.bfloat16)
    out = scatter_pairs(y, torch.tensor([0, 0]), torch.ones(2), 1)
    assert out.dtype == torch.float32
    assert out.item() == 257.0


def test_no_pairs_give_zeros() -> None:
    out = scatter_pairs(torch.empty(0, 3), torch.empty(0, dtype=torch.long), torch.empty(0), 2)
    assert out.tolist() == [[0.0] * 3] * 2
