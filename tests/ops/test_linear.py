"""Linear maps through oneDNN and torch against products in float64."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from leandit.ops import linear, linear_gelu
from leandit.ops.onednn import suits_onednn

ONEDNN = torch.backends.mkldnn.is_available()
# (rows, input, output) with odd sizes, one row, and nothing.
SIZES = [((37,), 33, 7), ((2, 5, 3), 64, 48), ((1,), 16, 16), ((0,), 8, 4), ((3, 0), 8, 4), ((4,), 8, 1)]


def case(rows: tuple[int, ...], dim: int, out: int, bias: bool, dtype: torch.dtype = torch.float32) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(*rows, dim), (out, dim)] + ([(out,)] if bias else [])
    values: list[Any] = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    return values if bias else [*values, None]


def definition(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = torch.einsum("...d,fd->...f", x, weight)
    return y if bias is None else y + bias


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "dim", "out"), SIZES)
def test_output_and_all_gradients(rows: tuple[int, ...], dim: int, out: int, bias: bool) -> None:
    given = case(rows, dim, out, bias)
    exact = [None if value is None else value.detach().double().requires_grad_() for value in given]
    y, expected = linear(*given), definition(*exact)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (y * weight).sum().backward()
    (expected * weight.double()).sum().backward()
    for one, other in zip(given, exact, strict=True):
        if one is not None:
            torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("gradients", [True, False])
def test_gelu_is_the_tanh_form_with_and_without_gradients(dtype: torch.dtype, gradients: bool) -> None:
    given = case((19,), 40, 24, bias=True, dtype=dtype)
    exact = [value.detach().double() for value in given]
    with torch.set_grad_enabled(gradients):
        y = linear_gelu(*given)
    assert y.dtype == dtype
    assert y.requires_grad == gradients
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 6e-2}[dtype]
    torch.testing.assert_close(y.double(), gelu_tanh(definition(*exact)), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("gradients", [True, False])
def test_autocast_multiplies_in_its_dtype(gradients: bool) -> None:
    given = case((19,), 40, 24, bias=True)
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16):
        y, hidden = linear(*given), linear_gelu(*given)
        assert torch.equal(y, F.linear(*given))
    assert y.dtype == hidden.dtype == torch.bfloat16
    torch.testing.assert_close(hidden.float(), gelu_tanh(definition(*given)).detach(), rtol=5e-2, atol=1e-1)


def test_transposed_and_strided_input() -> None:
    x, weight = torch.randn(40, 19).T, torch.randn(80, 24).T[:, ::2]
    y = linear(x.requires_grad_(), weight.requires_grad_())
    torch.testing.assert_close(y, x @ weight.T, rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad(y.square().sum(), (x, weight))
    wanted = torch.autograd.grad((x @ weight.T).square().sum(), (x, weight))
    torch.testing.assert_close(grads, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("gradients", [True, False])
def test_strided_bias(gradients: bool) -> None:
    """The library reads as many numbers as the bias has, whatever lies between them."""
    x, weight, long = torch.randn(5, 6), torch.randn(4, 6), torch.randn(8)
    with torch.set_grad_enabled(gradients):
        for bias in (long[::2], long[:1].expand(4)):
            expected = x @ weight.T + bias
            torch.testing.assert_close(linear(x.requires_grad_(), weight, bias), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(linear_gelu(x, weight, bias), gelu_tanh(expected), rtol=1e-4, atol=1e-5)


def test_a_single_row_without_a_batch() -> None:
    x, weight = torch.randn(6, requires_grad=True), torch.randn(4, 6)
    linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0))


def test_low_precision_that_the_processor_lacks_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[suits_onednn.__module__], "_LOW_PRECISION", ())
    x, weight = torch.randn(5, 6).bfloat16(), torch.randn(4, 6).bfloat16()
    assert not suits_onednn(x, weight, low_precision=True)
    with torch.no_grad():
        assert torch.equal(linear_gelu(x, weight), F.gelu(F.linear(x, weight), approximate="tanh"))


def test_autocast_leaves_float64_as_it_is() -> None:
    x, weight = torch.randn(5, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert linear_gelu(x, weight).dtype == torch.float64


def test_gradients_that_nobody_asks_for_are_left_out() -> None:
    x, weight, bias = case((5,), 8, 4, bias=True)
    linear(x.detach(), weight, bias.detach()).sum().backward()
    assert (x.grad, bias.grad) == (None, None)
    torch.testing.assert_close(weight.grad, x.detach().sum(0).expand(4, 8))


@pytest.mark.skipif(not ONEDNN, reason="torch was built without oneDNN")
def test_onednn_is_for_what_torch_takes_elsewhere() -> None:
    x, low = torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bfloat16)
    assert suits_onednn(x, x, None)
    assert not suits_onednn(low, low)
    assert suits_onednn(low, low, low_precision=True)
    assert not suits_onednn(x, low, low_precision=True)
    assert not suits_onednn(x.double(), x.double(), low_precision=True)
    assert not suits_onednn(x[:0], x)


def test_flops_are_counted() -> None:
    given = case((6,), 8, 4, bias=True)
    with FlopCounterMode(display=False) as counter:
        linear(*given).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 6 * 8 * 4
