"""Shapes are checked in tests, anew in each."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from leandit.ops.linear import linear
from leandit.ops.modulate import norm_modulate
from shape_checks import CALLS


@pytest.mark.parametrize("test", range(2))
def test_the_first_calls_of_a_function_are_checked(test: int) -> None:
    x, weight = torch.zeros(2, 3), torch.zeros(4, 3)
    for _ in range(CALLS - 1):
        linear(x, weight, None)
    with pytest.raises(jaxtyping.TypeCheckError, match="linear"):
        linear(x, torch.zeros(4), None)


def test_later_calls_are_not() -> None:
    x = torch.zeros(2, 5, 3)
    for _ in range(2 * CALLS):
        norm_modulate(x, torch.zeros(2, 3), torch.zeros(2, 3), 1e-6)
    assert norm_modulate(x, torch.zeros(1, 1, 3), torch.zeros(1, 1, 3), 1e-6).shape == (1, 2, 5, 3)
