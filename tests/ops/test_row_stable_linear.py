"""A row's result is bitwise the same whatever else is computed with it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from leandit.ops import row_stable_linear


@pytest.mark.parametrize(("dim", "out"), [(64, 64), (256, 768), (33, 7)])
def test_rows_do_not_depend_on_their_number(dim: int, out: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in [(40, dim), (out, dim), (out,)])
    with torch.no_grad():
        everything = row_stable_linear(x, weight, bias)
        torch.testing.assert_close(everything, (x.double() @ weight.double().T + bias).float(), rtol=1e-4, atol=1e-4)
        for rows in (1, 2, 3, 5, 8, 15, 16, 17, 40):
            assert torch.equal(row_stable_linear(x[:rows], weight, bias), everything[:rows]), rows


def test_no_bias_and_no_rows() -> None:
    weight = torch.randn(4, 3)
    with torch.no_grad():
        assert row_stable_linear(torch.empty(0, 3), weight, None).shape == (0, 4)
        x = torch.randn(2, 3)
        torch.testing.assert_close(row_stable_linear(x, weight, None), F.linear(x, weight))


def test_gradients_flow() -> None:
    args = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(3, 5), (4, 5), (4,)]]
    assert torch.autograd.gradcheck(row_stable_linear, args)
