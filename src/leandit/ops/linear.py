"""Linear maps whose rows do not depend on the number of rows.

Matrix libraries sum in another order if there are few rows, so the same row changes by a rounding error. A threshold
router can turn that error into another set of experts, and a sample would then depend on its batch. With at least
MIN_ROWS rows the common CPU libraries always use the same order.

Legend: N rows, D input width, F output width.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from leandit.ops.backends import load

MIN_ROWS = 16
_ONEDNN = "leandit.ops.onednn"


def autocast_dtype(device: str) -> torch.dtype | None:
    """Return the dtype that autocast computes in on a device of this type, or None if it is off."""
    # The "meta" device has no autocast, and torch raises an error for it.
    return torch.get_autocast_dtype(device) if device != "meta" and torch.is_autocast_enabled(device) else None


def full_precision(device: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which autocast is off on devices of this type."""
    return contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def linear(
    x: Float[Tensor, "*batch dim"], weight_FD: Float[Tensor, "out dim"], bias_F: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "*batch out"]:
    """Return x Wᵀ + b like torch's linear, also under autocast, by oneDNN if that is faster."""
    if _plain_cpu(x) and load(_ONEDNN).suits_onednn(x, weight_FD, bias_F) and not autocast_dtype("cpu"):
        return load(_ONEDNN).linear(x, weight_FD, bias_F)
    return F.linear(x, weight_FD, bias_F)


def linear_gelu(
    x: Float[Tensor, "*batch dim"], weight_FD: Float[Tensor, "out dim"], bias_F: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "*batch out"]:
    """Return GELU(x Wᵀ + b) in the tanh form. Without gradients it is one step if oneDNN computes it."""
    if _plain_cpu(x) and not torch.is_grad_enabled():
        dtype = autocast_dtype("cpu")
        given = [x, weight_FD, *([] if bias_F is None else [bias_F])]
        if dtype is not None and x.dtype != torch.float64:  # autocast does not change float64
            given = [value.to(dtype) for value in given]
        if load(_ONEDNN).suits_onednn(*given, low_precision=True):
            return load(_ONEDNN).onednn_linear(*given, gelu=True)
    return F.gelu(linear(x, weight_FD, bias_F), approximate="tanh")


def _plain_cpu(x: Tensor) -> bool:
    """False under torch.compile: it optimises linear maps itself and cannot generate code for our oneDNN call."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def row_stable_linear(
    x_ND: Float[Tensor, "rows dim"], weight_FD: Float[Tensor, "out dim"], bias_F: Float[Tensor, " out"] | None
) -> Float[Tensor, "rows out"]:
    """Return x Wᵀ + b with rows that do not depend on their number (exact in fp32 with the common CPU libraries).

    Nothing is padded while gradients are recorded, because training does not need this property.
    """
    rows = x_ND.shape[0]
    if torch.is_grad_enabled() or rows >= MIN_ROWS or x_ND.device.type != "cpu":
        return linear(x_ND, weight_FD, bias_F)
    return linear(F.pad(x_ND, (0, 0, 0, MIN_ROWS - rows)), weight_FD, bias_F)[:rows]
