"""Feed-forward experts: for each token the weighted sum over its experts.

    y_t = sum_e mask_te weight_te FFN_e(x_t),      FFN_e(x) = activation(x W1_e + b1_e) W2_e + b2_e

Legend: T tokens, R rows sorted by expert, E experts, D width, F width after the first map (2 H for swiglu), H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, einsum
from torch.nn import functional as F

from leandit.errors import LeanDiTError
from leandit.ops.backends import interpreted, load, log_choice, require_triton, suits_triton
from leandit.ops.expert_ffn.operator import BLOCK, max_rows
from leandit.ops.linear import autocast_dtype, full_precision

Activation = Literal["gelu", "swiglu"]
ExpertImpl = Literal["auto", "naive", "loop", "grouped_mm", "triton"]

_GROUPED = "leandit.ops.expert_ffn.grouped"
_GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def expert_ffn(
    x_TD: Float[Tensor, "tokens dim"],
    weight_TE: Float[Tensor, "tokens experts"],
    mask_TE: Bool[Tensor, "tokens experts"],
    w1_EDF: Float[Tensor, "experts dim pre"],
    b1_EF: Float[Tensor, "experts pre"] | None,
    w2_EHD: Float[Tensor, "experts hidden dim"],
    b2_ED: Float[Tensor, "experts dim"] | None,
    *,
    activation: Activation = "gelu",
    num_pairs: int | None = None,
    impl: ExpertImpl = "auto",
) -> Float[Tensor, "tokens dim"]:
    """Return sum_e mask_te weight_te FFN_e(x_t), in the dtype of the products. It is 0 for a token without an expert.

    Under autocast the products run in its dtype, and gradients have the dtype of the weights. An entry of `weight_TE`
    gets a gradient if its mask is True. `num_pairs` is an upper bound on the True entries of the mask; without it they
    are counted, and the host waits for a GPU.

    `impl`: `naive` is the definition, `loop` computes one expert after the other, `grouped_mm` uses torch's grouped
    product, `triton` uses kernels for CUDA. `auto` on CUDA is triton if it is installed, else grouped_mm in bfloat16;
    in all other cases it is loop. Raises LeanDiTError if the named implementation cannot run.
    """
    device = x_TD.device.type
    dtype = autocast_dtype(device) or w1_EDF.dtype
    b1_EF = w1_EDF.new_zeros(w1_EDF.shape[::2]) if b1_EF is None else b1_EF
    b2_ED = w2_EHD.new_zeros(w2_EHD.shape[::2]) if b2_ED is None else b2_ED
    weights = [w.to(dtype) for w in (w1_EDF, b1_EF, w2_EHD, b2_ED)]
    inputs = (x_TD.to(dtype), weight_TE, mask_TE, weights)
    chosen = choose(impl, device, dtype)
    with full_precision(device):
        if chosen == "naive":
            return definition(*inputs, activation)
        if chosen == "grouped_mm":
            return load(_GROUPED).compute(*inputs, activation, _count(mask_TE, num_pairs))
        keep = torch.is_grad_enabled() and any(value.requires_grad for value in (*inputs[:2], *weights))
        # On a GPU large blocks make products faster but need more padding.
        large = num_pairs is not None and num_pairs >= 512 * w1_EDF.shape[0]
        block = (128 if large else 64) if chosen == "triton" and device == "cuda" else BLOCK
        # The backward pass needs a fixed number of rows. In inference an upper bound avoids a synchronisation on a GPU.
        bounded = keep or (chosen == "triton" and num_pairs is not None)
        rows = max_rows(_count(mask_TE, num_pairs), w1_EDF.shape[0], block) if bounded else -1
        return torch.ops.leandit.expert_ffn(*inputs, activation, rows, block, keep, chosen)[0]


def activate(pre: Float[Tensor, "*rows pre"], activation: str) -> Float[Tensor, "*rows hidden"]:
    """Return gelu(x) in the tanh form, or for swiglu silu(a) b with x = [a, b]."""
    if activation == "gelu":
        return F.gelu(pre, approximate="tanh")
    a, b = pre.chunk(2, dim=-1)
    return F.silu(a) * b


def definition(
    x_TD: Float[Tensor, "tokens dim"],
    weight_TE: Float[Tensor, "tokens experts"],
    mask_TE: Bool[Tensor, "tokens experts"],
    weights: Sequence[Tensor],
    activation: str,
) -> Float[Tensor, "tokens dim"]:
    """Return sum_e mask_te weight_te FFN_e(x_t): every expert computes every token, and the mask selects the results.

    `weights` are w1, b1, w2 and b2.
    """
    w1_EDF, b1_EF, w2_EHD, b2_ED = weights
    pre_TEF = einsum("td,edf->tef", x_TD, w1_EDF) + b1_EF
    y_TED = einsum("teh,ehd->ted", activate(pre_TEF, activation), w2_EHD) + b2_ED
    return (y_TED * weight_TE.where(mask_TE, 0.0)[..., None]).sum(1).to(x_TD.dtype)


def expert_rows(
    x_RD: Float[Tensor, "rows dim"],
    ends_E: Int[Tensor, " experts"],
    w1_EDF: Float[Tensor, "experts dim pre"],
    b1_EF: Float[Tensor, "experts pre"] | None,
    w2_EHD: Float[Tensor, "experts hidden dim"],
    b2_ED: Float[Tensor, "experts dim"] | None,
    *,
    activation: Activation = "gelu",
    impl: ExpertImpl = "auto",
) -> Float[Tensor, "rows dim"]:
    """Return FFN_e(x_r) for rows sorted by expert: those of expert e are ends_E[e - 1] to ends_E[e] - 1.

    Rows after the last end are padding and give 0. This is `expert_ffn` with one expert per row, so every backend
    supports it, and nothing waits for the device. It needs about 9 extra bytes per row and expert.
    """
    row_R1 = torch.arange(len(x_RD), device=x_RD.device)[:, None]
    starts_E = F.pad(ends_E[:-1], (1, 0))
    mask_RE = (row_R1 >= starts_E) & (row_R1 < ends_E)
    ones_RE = x_RD.new_ones(()).expand(mask_RE.shape)
    weights = (w1_EDF, b1_EF, w2_EHD, b2_ED)
    return expert_ffn(x_RD, ones_RE, mask_RE, *weights, activation=activation, num_pairs=len(x_RD), impl=impl)


def _count(mask_TE: Tensor, num_pairs: int | None) -> int:
    return int(mask_TE.sum()) if num_pairs is None else num_pairs


def choose(impl: str, device: str, dtype: torch.dtype) -> str:
    """Return the backend for products in `dtype` on a device of this type.

    Raises LeanDiTError if the named backend is unknown or cannot run here. It is never replaced silently.
    """
    if impl == "auto":
        # In other dtypes than bfloat16 torch.compile cannot compile torch's grouped product.
        other = "grouped_mm" if device == "cuda" and dtype == torch.bfloat16 else "loop"
        impl = "triton" if suits_triton(device, dtype) else other
        log_choice("expert_ffn", device, impl)
    elif impl not in ("naive", "loop", "grouped_mm", "triton"):
        raise LeanDiTError(f"impl = {impl!r}: choose auto, naive, loop, grouped_mm or triton")
    if impl == "triton":
        require_triton("expert_ffn", impl, device, dtype)
        if dtype == torch.bfloat16 and interpreted():
            raise LeanDiTError("expert_ffn: Triton's interpreter cannot multiply bfloat16: use float32 or float16")
    if impl == "grouped_mm":
        if dtype not in _GROUPED_DTYPES:
            raise LeanDiTError(f"expert_ffn: impl = 'grouped_mm' takes float32, bfloat16 and float16, not {dtype}")
        load(_GROUPED)
    return impl


# `choose` takes no tensors and always returns the same result, so torch.compile does not have to trace it. This is
# what torch.compiler.assume_constant_result sets; calling that would import torch's compiler, which takes 2 seconds.
choose._dynamo_marked_constant = True  # type: ignore[attr-defined]
