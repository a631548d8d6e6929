"""The grouped product against its reference: forward, every gradient, empty experts, counts around the block size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leandit.ops.grouped_gemm import BLOCK, grouped_linear, grouped_linear_reference

COUNTS = {
    "empty experts": [0, 3, 0, 5, 0],
    "one expert": [7],
    "nothing at all": [0, 0],
    "one row": [0, 1],
    "around the block": [BLOCK - 1, BLOCK, BLOCK + 1, 0, 2 * BLOCK, 2 * BLOCK + 3],
}


def inputs(counts: list[int], dim: int = 5, out: int = 3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(sum(counts), dim), (len(counts), dim, out), (len(counts), out)]
    return [torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_forward_and_all_gradients_equal_the_reference(counts: list[int]) -> None:
    args = inputs(counts)
    out, expected = grouped_linear(*args, counts), grouped_linear_reference(*args, counts)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    for mine, theirs in zip(
        torch.autograd.grad(out, args, grad), torch.autograd.grad(expected, args, grad), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("counts", [[2, 0, 3], [4]])
def test_gradients_equal_finite_differences(counts: list[int]) -> None:
    assert torch.autograd.gradcheck(lambda *args: grouped_linear(*args, counts), inputs(counts))


def test_gradients_across_blocks_equal_finite_differences() -> None:
    counts = [BLOCK + 1, 0, BLOCK]
    assert torch.autograd.gradcheck(lambda *args: grouped_linear(*args, counts), inputs(counts, 2, 2), fast_mode=True)


def test_non_contiguous_input_weight_and_gradient() -> None:
    counts = [3, BLOCK + 2]
    x = torch.randn(5, sum(counts), dtype=torch.float64).T.requires_grad_()
    weight = torch.randn(2, 3, 5, dtype=torch.float64).transpose(1, 2).requires_grad_()
    bias = torch.randn(3, 2, dtype=torch.float64).T.requires_grad_()
    assert not any(tensor.is_contiguous() for tensor in (x, weight, bias))
    grad = torch.randn(3, sum(counts), dtype=torch.float64).T
    out, expected = grouped_linear(x, weight, bias, counts), grouped_linear_reference(x, weight, bias, counts)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    mine = torch.autograd.grad(out, (x, weight, bias), grad)
    for one, other in zip(mine, torch.autograd.grad(expected, (x, weight, bias), grad), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_an_empty_expert_gets_a_gradient_of_exactly_zero() -> None:
    args = inputs([2, 0, 1])
    _, weight_grad, bias_grad = torch.autograd.grad(grouped_linear(*args, [2, 0, 1]).sum(), args)
    assert not weight_grad[1].any()
    assert not bias_grad[1].any()
    assert weight_grad[0].any()


def test_input_without_gradient() -> None:
    x, weight, bias = inputs([2, 1])
    out = grouped_linear(x.detach(), weight, bias, [2, 1])
    expected = grouped_linear_reference(x.detach(), weight, bias, [2, 1])
    torch.testing.assert_close(
        torch.autograd.grad(out.sum(), weight), torch.autograd.grad(expected.sum(), weight), rtol=1e-12, atol=1e-12
    )


def test_autocast_computes_low_and_returns_gradients_in_the_weights_precision() -> None:
    counts = [3, 0, BLOCK + 1]
    args = inputs(counts, 16, 8, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = grouped_linear(*args, counts)
    assert out.dtype == torch.bfloat16
    expected = grouped_linear_reference(*args, counts)
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.1)
    grads = torch.autograd.grad(out.float().sum(), args)
    assert {grad.dtype for grad in grads} == {torch.float32}
    for mine, theirs in zip(grads, torch.autograd.grad(expected.sum(), args), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.05, atol=0.2)


def test_a_row_does_not_depend_on_how_many_rows_its_expert_got() -> None:
    x, weight, bias = (tensor.detach() for tensor in inputs([200], 48, 96, torch.float32))
    everything = grouped_linear(x, weight, bias, [200])
    for count in (1, 2, 5, 15, 16, 31, BLOCK - 1, BLOCK, BLOCK + 1, 150):
        assert torch.equal(grouped_linear(x[:count], weight, bias, [count]), everything[:count]), count


@pytest.mark.parametrize("counts", [[3, 3], [4], [2, 2, 0]])
def test_counts_that_do_not_fit_are_refused(counts: list[int]) -> None:
    x, weight, bias = inputs([2, 2])
    with pytest.raises(ValueError, match="do not divide into counts"):
        grouped_linear(x, weight, bias, counts)
