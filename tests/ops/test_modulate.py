"""Layer norm with shift and scale, and the gated residual, against loops in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leandit.ops import gated_residual, norm_modulate
from leandit.ops.modulate import norm_modulate_naive

EPS = 1e-6
# Below and above the size from which samples are computed one by one; that path has odd sizes, too.
SIZES = [(2, 3, 4), (1, 256, 128), (3, 257, 129), (2, 0, 8), (0, 4, 8)]


def in_loops(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """The definition, token by token."""
    rows = []
    for b in range(x.shape[0]):
        for token in x[b]:
            centred = token - token.mean()
            normed = centred / (centred.square().mean() + EPS).sqrt()
            rows.append(normed * (1 + scale[b]) + shift[b])
    return torch.stack(rows).reshape(x.shape) if rows else x.clone()


def inputs(size: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch, tokens, dim = size
    x = torch.randn(batch, tokens, dim, generator=generator) * 2 + 1
    shift, scale = torch.randn(2, batch, dim, generator=generator)
    return tuple(value.to(dtype).requires_grad_() for value in (x, shift, scale))


@pytest.mark.parametrize("size", SIZES)
def test_output_and_all_gradients_are_those_of_the_definition(size: tuple[int, int, int]) -> None:
    x, shift, scale = inputs(size)
    exact = [value.detach().double().requires_grad_() for value in (x, shift, scale)]
    out, expected = norm_modulate(x, shift, scale, EPS), in_loops(*exact)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn(size, generator=torch.Generator().manual_seed(1))
    (out * weight).sum().backward()
    (expected * weight.double()).sum().backward()
    for given, wanted in zip((x, shift, scale), exact, strict=True):
        wanted_grad = torch.zeros_like(wanted) if wanted.grad is None else wanted.grad
        torch.testing.assert_close(given.grad.double(), wanted_grad, rtol=1e-4, atol=1e-4)


def test_modulation_in_low_precision_leaves_the_stream_in_full() -> None:
    """As under autocast: the residual stream is fp32, what a linear map made of the condition is bf16."""
    x, shift, scale = inputs((2, 256, 128))
    low = [value.detach().bfloat16().requires_grad_() for value in (shift, scale)]
    out = norm_modulate(x, *low, EPS)
    expected = norm_modulate_naive(x, *low, EPS)
    assert out.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    out.sum().backward()
    assert [value.grad.dtype for value in low] == [torch.bfloat16] * 2


def test_non_contiguous_input_and_gradient() -> None:
    x, shift, scale = inputs((128, 256, 2))
    turned = x.permute(2, 1, 0)
    out = norm_modulate(turned, shift[:2, 0].expand(128, 2).T, scale[:2, 0].expand(128, 2).T, EPS)
    exact = in_loops(turned.double(), shift[:2, 0].expand(128, 2).T.double(), scale[:2, 0].expand(128, 2).T.double())
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad(out.transpose(0, 1).sum(0)[0].sum(), x)
    wanted = torch.autograd.grad(exact.transpose(0, 1).sum(0)[0].sum(), x)
    torch.testing.assert_close(grads, wanted, rtol=1e-4, atol=1e-4)


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    x, shift, scale = inputs((4, 256, 128))
    alone = norm_modulate(x[2:3], shift[2:3], scale[2:3], EPS)
    assert torch.equal(norm_modulate(x, shift, scale, EPS)[2:3], alone)


def test_the_operator_says_its_shapes_and_gradients_without_content() -> None:
    """What memory is counted with: torch's own checks of schema, fake shapes and autograd."""
    x, shift, scale = inputs((2, 256, 128))
    torch.library.opcheck(torch.ops.leandit.norm_modulate, (x, scale, shift, EPS))
    x, weight, bias = (value.detach() for value in (x, scale, shift))
    _, mean, inverse = torch.ops.leandit.norm_modulate(x, weight, bias, EPS)
    torch.library.opcheck(torch.ops.leandit.norm_modulate_backward, (x, x, weight, bias, mean, inverse))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gated_residual_adds_each_sample_by_its_own_gate(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 4, generator=generator, requires_grad=True)
    y = torch.randn(3, 5, 4, generator=generator).to(dtype).requires_grad_()
    gate = torch.randn(3, 4, generator=generator).to(dtype).requires_grad_()
    out = gated_residual(x, gate, y)
    assert out.dtype == torch.float32
    for b in range(3):
        torch.testing.assert_close(out[b], x[b] + gate[b].float() * y[b].float())
    out.backward(weight := torch.randn(3, 5, 4, generator=generator))
    torch.testing.assert_close(x.grad, weight)
    torch.testing.assert_close(y.grad.float(), weight * gate[:, None].float(), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(gate.grad.float(), (weight * y.float()).sum(1), rtol=2e-2, atol=2e-2)
