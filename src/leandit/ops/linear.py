"""Linear maps: fast on any CPU, and with rows that do not depend on the number of rows.

torch multiplies float32 with MKL. On processors that are not from Intel, MKL uses a code path that takes twice as long
as oneDNN. For low precision torch uses oneDNN by itself. oneDNN can also apply GELU while a block of the product is in
the cache; this is useful if the values before GELU are not needed for gradients.

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
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MIN_ROWS = 16

# Evaluated once, because torch.compile cannot trace these calls.
_HAS_ONEDNN = torch.backends.mkldnn.is_available()
_LOW_PRECISION = tuple(
    dtype
    for dtype, supported in (
        (torch.bfloat16, "_is_mkldnn_bf16_supported"),
        (torch.float16, "_is_mkldnn_fp16_supported"),
    )
    if _HAS_ONEDNN and getattr(torch.ops.mkldnn, supported)()
)


def autocast_dtype(device: str) -> torch.dtype | None:
    """Return the dtype that autocast computes in on a device of this type, or None if it is off."""
    # Tensors without content, on the device "meta", have no autocast, and torch raises if it is asked.
    return torch.get_autocast_dtype(device) if device != "meta" and torch.is_autocast_enabled(device) else None


def full_precision(device: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which autocast is off on devices of this type."""
    return contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def linear(
    x: Float[Tensor, "*batch dim"], weight_FD: Float[Tensor, "out dim"], bias_F: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "*batch out"]:
    """Return x Wᵀ + b like torch's linear, also under autocast."""
    if autocast_dtype(x.device.type) or not suits_onednn(x, weight_FD, bias_F):
        return F.linear(x, weight_FD, bias_F)
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight_FD, bias_F)
    return onednn_linear(x, weight_FD, bias_F)


def linear_gelu(
    x: Float[Tensor, "*batch dim"], weight_FD: Float[Tensor, "out dim"], bias_F: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "*batch out"]:
    """Return GELU(x Wᵀ + b) in the tanh form. Without gradients it is one step if oneDNN computes it."""
    if not torch.is_grad_enabled():
        device = x.device.type
        dtype = autocast_dtype(device)
        if dtype is not None and x.dtype != torch.float64:  # autocast does not change float64
            x, weight_FD = x.to(dtype), weight_FD.to(dtype)
            bias_F = None if bias_F is None else bias_F.to(dtype)
        if suits_onednn(x, weight_FD, bias_F, low_precision=True):
            return onednn_linear(x, weight_FD, bias_F, gelu=True)
    return F.gelu(linear(x, weight_FD, bias_F), approximate="tanh")


def suits_onednn(*tensors: Tensor | None, low_precision: bool = False) -> bool:
    """Return whether these tensors need our oneDNN call: torch would not use oneDNN by itself.

    With `low_precision`, return whether oneDNN can multiply them at all. False under torch.compile, which optimises
    linear maps by itself and cannot generate code for this call.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    dtypes = {tensor.dtype for tensor in given}
    wanted = (torch.float32, *_LOW_PRECISION) if low_precision else (torch.float32,)
    return (
        len(dtypes) == 1
        and dtypes.pop() in wanted
        and all(tensor.device.type == "cpu" and tensor.numel() > 0 for tensor in given)
        and _HAS_ONEDNN
        and not torch.compiler.is_compiling()
    )


def onednn_linear(x: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None, gelu: bool = False) -> Tensor:
    """Return x Wᵀ + b by oneDNN, followed by GELU in the tanh form if `gelu`. It has no gradient."""
    # This is also the operator that torch.compile generates. It needs a contiguous bias and does not check.
    bias_F = None if bias_F is None else bias_F.contiguous()
    name, form = ("gelu", "tanh") if gelu else ("none", "")
    return torch.ops.mkldnn._linear_pointwise(x, weight_FD, bias_F, name, [], form)


class _Linear(torch.autograd.Function):
    """x Wᵀ + b, with oneDNN's products in both passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_FD)
        return onednn_linear(x, weight_FD, bias_F)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight_FD = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        grad_NF, x_ND = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        return (
            onednn_linear(grad, weight_FD.T) if for_x else None,
            onednn_linear(grad_NF.T, x_ND.T) if for_weight else None,
            grad_NF.sum(0) if for_bias else None,
        )


def pad_rows(x_ND: Float[Tensor, "rows dim"]) -> Float[Tensor, "padded dim"]:
    """Append zero rows up to MIN_ROWS."""
    missing = MIN_ROWS - x_ND.shape[0]
    return F.pad(x_ND, (0, 0, 0, missing)) if missing > 0 else x_ND


def row_stable_linear(
    x_ND: Float[Tensor, "rows dim"], weight_FD: Float[Tensor, "out dim"], bias_F: Float[Tensor, " out"] | None
) -> Float[Tensor, "rows out"]:
    """Return x Wᵀ + b. Each row is independent of the number of rows (exact in fp32 with the common CPU libraries).

    While gradients are recorded nothing is padded, because training does not need this property.
    """
    rows = x_ND.shape[0]
    if torch.is_grad_enabled() or rows >= MIN_ROWS or x_ND.device.type != "cpu":
        return linear(x_ND, weight_FD, bias_F)
    return linear(pad_rows(x_ND), weight_FD, bias_F)[:rows]
