"""Linear maps: by the fastest library of a CPU, and with rows that do not depend on how many there are.

torch multiplies float32 through MKL, which on other processors than Intel's keeps to a code path that takes twice as
long as oneDNN's; low precision goes through oneDNN by itself. oneDNN can also apply GELU while a block of the product
is in the cache, which is of use where nothing before it has to be kept.

Matrix libraries switch to other summation orders for a handful of rows, so the same row comes out different by a
rounding error. A threshold router turns that error into another set of experts, and a sample would depend on the
batch that it was drawn in. With at least MIN_ROWS rows the common CPU libraries keep one order per row.

Legend: N rows, D input width, F output width.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MIN_ROWS = 16

# Asked once: a compiler cannot see into the questions.
_HAS_ONEDNN = torch.backends.mkldnn.is_available()
_LOW_PRECISION = tuple(
    dtype
    for dtype, supported in (
        (torch.bfloat16, "_is_mkldnn_bf16_supported"),
        (torch.float16, "_is_mkldnn_fp16_supported"),
    )
    if _HAS_ONEDNN and getattr(torch.ops.mkldnn, supported)()
)


def linear(
    x: Float[Tensor, "*batch dim"], weight_FD: Float[Tensor, "out dim"], bias_F: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "*batch out"]:
    """Return x Wᵀ + b, as torch's linear does, autocast included."""
    if torch.is_autocast_enabled(x.device.type) or not suits_onednn(x, weight_FD, bias_F):
        return F.linear(x, weight_FD, bias_F)
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight_FD, bias_F)
    return onednn_linear(x, weight_FD, bias_F)


def linear_gelu(
    x: Float[Tensor, "*batch dim"], weight_FD: Float[Tensor, "out dim"], bias_F: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "*batch out"]:
    """Return GELU(x Wᵀ + b) in its tanh form; without gradients as one step where oneDNN computes it."""
    if not torch.is_grad_enabled():
        device = x.device.type
        if torch.is_autocast_enabled(device) and x.dtype != torch.float64:  # which autocast leaves as it is
            dtype = torch.get_autocast_dtype(device)
            x, weight_FD = x.to(dtype), weight_FD.to(dtype)
            bias_F = None if bias_F is None else bias_F.to(dtype)
        if suits_onednn(x, weight_FD, bias_F, low_precision=True):
            return onednn_linear(x, weight_FD, bias_F, gelu=True)
    return F.gelu(linear(x, weight_FD, bias_F), approximate="tanh")


def suits_onednn(*tensors: Tensor | None, low_precision: bool = False) -> bool:
    """Whether oneDNN multiplies these, and torch does not use it by itself (`low_precision`: or does so).

    Not under torch.compile, which has its own ways with linear maps and cannot generate code around this one.
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
    """Return x Wᵀ + b by oneDNN, through GELU's tanh form if wanted; it has no gradient."""
    # What torch.compile's generated code calls, too. It takes the bias for contiguous without asking.
    bias_F = None if bias_F is None else bias_F.contiguous()
    name, form = ("gelu", "tanh") if gelu else ("none", "")
    return torch.ops.mkldnn._linear_pointwise(x, weight_FD, bias_F, name, [], form)


class _Linear(torch.autograd.Function):
    """x Wᵀ + b with oneDNN's products forward and backward."""

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
    """Return x Wᵀ + b, each row independent of the number of rows (exact in fp32 with the common CPU libraries).

    While gradients are recorded nothing is padded: training has no need of it.
    """
    rows = x_ND.shape[0]
    if torch.is_grad_enabled() or rows >= MIN_ROWS or x_ND.device.type != "cpu":
        return linear(x_ND, weight_FD, bias_F)
    return linear(pad_rows(x_ND), weight_FD, bias_F)[:rows]
