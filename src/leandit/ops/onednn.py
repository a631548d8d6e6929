"""Linear maps by oneDNN on a CPU, in cases where torch does not use it.

torch multiplies float32 with MKL, which takes twice as long as oneDNN on processors that are not from Intel. For low
precision torch already uses oneDNN. oneDNN can also apply GELU while a block of the product is in the cache; this is
useful if gradients do not need the values before GELU.

Legend: N rows, D input width, F output width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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


def suits_onednn(*tensors: Tensor | None, low_precision: bool = False) -> bool:
    """Return whether these tensors need our oneDNN call, because torch does not use oneDNN for them.

    With `low_precision`, return whether oneDNN can multiply them at all. False under torch.compile, which optimises
    linear maps itself and cannot generate code for this call.
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


def linear(x: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> Tensor:
    """Return x Wᵀ + b for tensors that `suits_onednn`. The backward pass also uses oneDNN's products."""
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight_FD, bias_F)
    return onednn_linear(x, weight_FD, bias_F)


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
