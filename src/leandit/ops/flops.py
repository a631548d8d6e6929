"""What torch's FLOP counter is told about operators into which it cannot see."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula


def register() -> None:
    """Enter the formulas of our operators, and of oneDNN's linear map, which torch leaves out."""
    ops = torch.ops.leandit
    register_flop_formula(ops.expert_ffn, get_raw=True)(_forward)
    register_flop_formula(ops.expert_ffn_backward, get_raw=True)(_backward)
    if torch.backends.mkldnn.is_available():
        register_flop_formula(torch.ops.mkldnn._linear_pointwise, get_raw=True)(_linear)


def _forward(
    x: Tensor, weight: Tensor, mask: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, *rest: Any, **kwargs: Any
) -> int:
    """Two products over the pairs alone, without their padding."""
    return 2 * int(mask.sum()) * (w1[0].numel() + w2[0].numel())


def _backward(grad: Tensor, *inputs: Any, **kwargs: Any) -> int:
    return 2 * _forward(*inputs)


def _linear(x: Tensor, weight: Tensor, *rest: Any, **kwargs: Any) -> int:
    return 2 * x.numel() * weight.shape[0]
