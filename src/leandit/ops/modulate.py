"""The start and the end of every branch of a block: layer normalisation with shift and scale, and a gated residual.

Legend: B batch, L tokens, D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from leandit.ops.backends import load

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
    large = x_BLD.ndim == 3 and x_BLD[:1].numel() >= _MIN_SAMPLE and len(x_BLD) > 0
    plain = x_BLD.device.type == "cpu" and x_BLD.dtype == torch.float32 and not torch.compiler.is_compiling()
    if large and plain:
        weight_BD, bias_BD = 1 + scale_BD.to(x_BLD.dtype), shift_BD.to(x_BLD.dtype)
        return load("leandit.ops.norm_by_sample").norm_by_sample(x_BLD, weight_BD, bias_BD, eps)
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
