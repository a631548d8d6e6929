"""FLOPs of our operators, for torch's FlopCounterMode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from leandit.ops.expert_ffn import max_rows


@register_flop_formula(torch.ops.leandit.expert_ffn, get_raw=True)
def _experts(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    weights: list[Tensor],
    activation: str,
    rows: int,
    block: int,
    *_: Any,
    **__: Any,
) -> int:
    """Return the FLOPs of two products over the pairs, without padding.

    The number of rows is an upper bound on the pairs. Without it the mask is counted, so it must not be a fake tensor.
    """
    w1, w2 = weights[0], weights[2]
    pairs = rows - max_rows(0, len(w1), block) if rows >= 0 else int(mask.sum())
    return 2 * pairs * (w1[0].numel() + w2[0].numel())


@register_flop_formula(torch.ops.leandit.expert_ffn_backward, get_raw=True)
def _experts_backward(grad: Tensor, *inputs: Any, **_: Any) -> int:
    """Return the FLOPs of four products over the pairs. Their number is that of the rows that forward kept."""
    *tensors, pre, _, activation, block, _ = inputs
    return 2 * _experts(*tensors, activation, len(pre), block)


def _linear(x: Tensor, weight: Tensor, *rest: Any, **kwargs: Any) -> int:
    return 2 * x.numel() * weight.shape[0]


if torch.backends.mkldnn.is_available():
    # torch's FLOP counter does not know oneDNN's linear map.
    register_flop_formula(torch.ops.mkldnn._linear_pointwise, get_raw=True)(_linear)
