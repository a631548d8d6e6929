"""The FLOPs of operators that torch's counter does not know."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from leandit.ops.expert_ffn.layout import max_rows


def register() -> None:
    """Enter the formulas of our operators, and of oneDNN's linear map, which torch leaves out."""
    ops = torch.ops.leandit
    register_flop_formula(ops.expert_ffn, get_raw=True)(_forward)
    register_flop_formula(ops.expert_ffn_backward, get_raw=True)(_backward)
    if torch.backends.mkldnn.is_available():
        register_flop_formula(torch.ops.mkldnn._linear_pointwise, get_raw=True)(_linear)


def _forward(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    activation: str,
    num_rows: int,
    block: int,
    *rest: Any,
    **kwargs: Any,
) -> int:
    """Two products over the pairs, without their padding.

    The caller announces the pairs by the rows that they need at most. Without a number of rows the mask is counted,
    which must then have content.
    """
    experts = len(w1)
    pairs = num_rows - max_rows(0, experts, block) if num_rows >= 0 else int(mask.sum())
    return 2 * pairs * (w1[0].numel() + w2[0].numel())


def _backward(grad: Tensor, *inputs: Any, **kwargs: Any) -> int:
    """Four products over the pairs: the rows that forward kept say how many."""
    *tensors, pre, _, activation, block, _ = inputs
    return 2 * _forward(*tensors, activation, len(pre), block)


def _linear(x: Tensor, weight: Tensor, *rest: Any, **kwargs: Any) -> int:
    return 2 * x.numel() * weight.shape[0]
