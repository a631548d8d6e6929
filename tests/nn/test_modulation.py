"""Modulation and the final layer against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from leandit.nn import AdaLN, FeedForward, FinalLayer


def randomise(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return module


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def test_adaln_vectors_come_in_order() -> None:
    adaln = randomise(AdaLN(4, 3))
    condition = torch.randn(2, 4)
    weight, bias = (p.detach().numpy() for p in adaln.parameters())
    expected = silu(condition.numpy()) @ weight.T + bias
    vectors = adaln(condition)
    assert len(vectors) == 3
    for i, vector in enumerate(vectors):
        np.testing.assert_allclose(vector.detach().numpy(), expected[:, 4 * i : 4 * i + 4], rtol=1e-5, atol=1e-6)


def test_vectors_can_have_another_width_than_the_condition() -> None:
    adaln = randomise(AdaLN(4, 3, width=5))
    condition = torch.randn(2, 4)
    weight, bias = (p.detach().numpy() for p in adaln.parameters())
    expected = silu(condition.numpy()) @ weight.T + bias
    for i, vector in enumerate(adaln(condition)):
        np.testing.assert_allclose(vector.detach().numpy(), expected[:, 5 * i : 5 * i + 5], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("condition_dim", [None, 4, 7])
def test_final_layer_norms_shifts_scales_and_projects(condition_dim: int | None) -> None:
    final = randomise(FinalLayer(4, 6, 1e-6, condition_dim))
    x, condition = torch.randn(2, 3, 4), torch.randn(2, condition_dim or 4)
    parameters = {name: p.detach().numpy() for name, p in final.named_parameters()}
    vectors = silu(condition.numpy()) @ parameters["adaln.linear.weight"].T + parameters["adaln.linear.bias"]
    shift, scale = vectors[:, None, :4], vectors[:, None, 4:]
    centred = x.numpy() - x.numpy().mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    expected = (normed * (1 + scale) + shift) @ parameters["linear.weight"].T + parameters["linear.bias"]
    np.testing.assert_allclose(final(x, condition).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_gated_feed_forward_is_swiglu_without_biases() -> None:
    feed_forward = randomise(FeedForward(4, 10, gated=True))
    x = 2 * torch.randn(5, 4)
    p = {name: value.detach().numpy().astype(np.float64) for name, value in feed_forward.named_parameters()}
    assert set(p) == {"gate.weight", "up.weight", "down.weight"}
    gate, up = (x.numpy() @ p[f"{name}.weight"].T for name in ("gate", "up"))
    expected = (gate / (1 + np.exp(-gate)) * up) @ p["down.weight"].T
    np.testing.assert_allclose(feed_forward(x).detach().numpy(), expected, rtol=1e-5, atol=2e-6)


def test_feed_forward_uses_the_tanh_gelu() -> None:
    feed_forward = randomise(FeedForward(4, 10))
    x = 2 * torch.randn(5, 4)
    w1, b1, w2, b2 = (p.detach().numpy().astype(np.float64) for p in feed_forward.parameters())
    hidden = x.numpy() @ w1.T + b1
    gelu = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    np.testing.assert_allclose(feed_forward(x).detach().numpy(), gelu @ w2.T + b2, rtol=1e-5, atol=2e-6)
