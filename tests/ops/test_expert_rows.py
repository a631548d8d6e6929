"""Experts on rows that are sorted already: every backend against one dense feed-forward after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from leandit.ops import expert_rows
from leandit.ops.expert_ffn import Activation, ExpertImpl

# How many rows each expert has, and how many of padding come after them.
ROWS = [([3, 0, 20, 1], 0), ([0, 0, 5, 0], 4), ([7], 0), ([0, 0, 0], 3), ([0, 0], 0), ([40, 33, 0], 2)]


def tensors(num_experts: int, rows: int, activation: str, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    dim, hidden = 8, 16
    pre = 2 * hidden if activation == "swiglu" else hidden
    shapes = [(rows, dim), (num_experts, dim, pre), (num_experts, pre), (num_experts, hidden, dim), (num_experts, dim)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def one_after_the_other(inputs: list[Tensor], counts: list[int], activation: str) -> Tensor:
    x, w1, b1, w2, b2 = inputs
    parts, start = [], 0
    for e, count in enumerate(counts):
        inner = x[start : start + count] @ w1[e] + b1[e]
        inner = F.silu(inner[:, :16]) * inner[:, 16:] if activation == "swiglu" else F.gelu(inner, approximate="tanh")
        parts.append(inner @ w2[e] + b2[e])
        start += count
    return torch.cat([*parts, torch.zeros_like(x[start:])])


@pytest.mark.parametrize(
    ("impl", "dtype", "tolerance"),
    [("naive", torch.float64, 1e-10), ("loop", torch.float64, 1e-10), ("grouped_mm", torch.float32, 1e-4)],
)
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize(("counts", "padding"), ROWS, ids=str)
def test_output_and_all_gradients(
    counts: list[int], padding: int, activation: Activation, impl: ExpertImpl, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = tensors(len(counts), sum(counts) + padding, activation, dtype)
    ends = torch.tensor(counts).cumsum(0)
    outputs = (
        expert_rows(inputs[0], ends, *inputs[1:], activation=activation, impl=impl),
        one_after_the_other(inputs, counts, activation),
    )
    results = [(y, *torch.autograd.grad(y.square().sum(), inputs)) for y in outputs]
    for got, expected in zip(*results, strict=True):
        scale = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
        torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * scale)


def test_rows_that_are_not_contiguous() -> None:
    inputs = tensors(3, 12, "gelu", torch.float64)
    spread = torch.stack([inputs[0], inputs[0]], -1)[..., 0]
    assert not spread.is_contiguous()
    ends = torch.tensor([4, 4, 12])
    got = expert_rows(spread, ends, *inputs[1:], impl="loop")
    torch.testing.assert_close(got, one_after_the_other(inputs, [4, 0, 8], "gelu"), rtol=1e-10, atol=1e-10)
