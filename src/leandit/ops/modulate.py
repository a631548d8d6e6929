"""The start and the end of every branch of a block: layer normalisation with shift and scale, and a gated residual.

Legend: B batch, L tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Smallest sample, in numbers, for one call per sample. For a smaller sample the call costs more than it saves.
_MIN_SAMPLE = 32_768


def norm_modulate(
    x_BLD: Float[Tensor, "batch tokens dim"],
    shift_BD: Float[Tensor, "batch dim"],
    scale_BD: Float[Tensor, "batch dim"],
    eps: float,
) -> Float[Tensor, "batch tokens dim"]:
    """Return LayerNorm(x) (1 + scale) + shift, with one shift and scale per sample. The norm has no weights.

    On a CPU and for large samples, the forward pass reads x once, and the backward pass reads x and the gradient once.

    Reference: DiT (arXiv 2212.09748), section 3.2 (adaLN).
    """
    if _by_sample(x_BLD):
        return _NormModulate.apply(x_BLD, shift_BD, scale_BD, eps)
    return norm_modulate_naive(x_BLD, shift_BD, scale_BD, eps)


def norm_modulate_naive(
    x_BLD: Float[Tensor, "batch tokens dim"],
    shift_BD: Float[Tensor, "batch dim"],
    scale_BD: Float[Tensor, "batch dim"],
    eps: float,
) -> Float[Tensor, "batch tokens dim"]:
    """The definition of `norm_modulate`: three passes, which a compiler fuses."""
    # Autocast makes the modulation low-precision, and 1 + scale would then lose small values of scale.
    shift_BD, scale_BD = (value.to(torch.promote_types(value.dtype, x_BLD.dtype)) for value in (shift_BD, scale_BD))
    return F.layer_norm(x_BLD, x_BLD.shape[-1:], eps=eps) * (1 + scale_BD[:, None]) + shift_BD[:, None]


def gated_residual(
    x_BLD: Float[Tensor, "batch tokens dim"],
    gate_BD: Float[Tensor, "batch dim"],
    y_BLD: Float[Tensor, "batch tokens dim"],
) -> Float[Tensor, "batch tokens dim"]:
    """Return x + gate y, one gate per sample, in one pass."""
    return torch.addcmul(x_BLD, gate_BD[:, None], y_BLD)


def _by_sample(x_BLD: Tensor) -> bool:
    large = x_BLD.ndim == 3 and x_BLD[:1].numel() >= _MIN_SAMPLE and len(x_BLD) > 0
    return large and x_BLD.device.type == "cpu" and x_BLD.dtype == torch.float32 and not torch.compiler.is_compiling()


def _samples(x_BLD: Tensor) -> range:
    """Return the samples to compute. For fake tensors, which only count memory, one sample is enough."""
    return range(1 if isinstance(x_BLD, FakeTensor) else len(x_BLD))


class _NormModulate(torch.autograd.Function):
    """One torch layer norm per sample, with the sample's modulation as weight and bias of the norm."""

    @staticmethod
    def forward(ctx: Any, x_BLD: Tensor, shift_BD: Tensor, scale_BD: Tensor, eps: float) -> Tensor:
        weight_BD, bias_BD = 1 + scale_BD.to(x_BLD.dtype), shift_BD.to(x_BLD.dtype)
        out_BLD, means, inverses = torch.empty_like(x_BLD), [], []
        for b in _samples(x_BLD):
            y_LD, mean_L, inverse_L = torch.native_layer_norm(x_BLD[b], x_BLD.shape[2:], weight_BD[b], bias_BD[b], eps)
            out_BLD[b] = y_LD  # still in the cache
            means.append(mean_L)
            inverses.append(inverse_L)
        ctx.save_for_backward(x_BLD, weight_BD, bias_BD, torch.stack(means), torch.stack(inverses))
        ctx.dtypes = shift_BD.dtype, scale_BD.dtype
        return out_BLD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x_BLD, weight_BD, bias_BD, mean_BL, inverse_BL = ctx.saved_tensors
        grad_x_BLD, grad_shift_BD, grad_scale_BD = (torch.empty_like(value) for value in (x_BLD, bias_BD, weight_BD))
        for b in _samples(x_BLD):
            grad_x_BLD[b], grad_scale_BD[b], grad_shift_BD[b] = torch.ops.aten.native_layer_norm_backward(
                *(grad_BLD[b], x_BLD[b], x_BLD.shape[2:], mean_BL[b], inverse_BL[b]),
                *(weight_BD[b], bias_BD[b], (True, True, True)),
            )
        shift, scale = ctx.dtypes
        return grad_x_BLD, grad_shift_BD.to(shift), grad_scale_BD.to(scale), None
