"""A feed-forward for each expert, over the tokens that chose it or were chosen by it, summed by weight.

    y_t = sum_e mask_te weight_te FFN_e(x_t),      FFN_e(x) = activation(x W1_e + b1_e) W2_e + b2_e

Gather, two products, activation, weights and scatter are one operator, so that torch.compile sees no number of pairs
and no backend has to write out what it can fuse.

Legend: T tokens, R rows sorted by expert, E experts, D width, F width after the first map (2 H for swiglu), H hidden
width.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from leandit.ops import flops
from leandit.ops.expert_ffn import loop
from leandit.ops.expert_ffn.choice import ExpertImpl, block_size, choose
from leandit.ops.expert_ffn.grouped import expert_ffn_grouped
from leandit.ops.expert_ffn.layout import max_rows
from leandit.ops.expert_ffn.naive import expert_ffn_naive

Activation = Literal["gelu", "swiglu"]


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
    """Return sum_e mask_te weight_te FFN_e(x_t), in the dtype of the products; 0 for a token without an expert.

    Under autocast the products run in its dtype and the gradients come back in the weights' own. Gradients reach
    `weight_TE` if the mask holds. `num_pairs` is a bound on the pairs of the mask, if one is known; it spares counting
    them. `impl`: `naive` is the definition, `loop` one expert after the other, `grouped_mm` torch's
    grouped product, `triton` kernels for CUDA; `auto` is triton on CUDA where it is installed, grouped_mm in bfloat16
    where it is not, and loop elsewhere. Raises LeanDiTError where what was named cannot run.
    """
    device = x_TD.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else w1_EDF.dtype
    b1_EF = w1_EDF.new_zeros(w1_EDF.shape[::2]) if b1_EF is None else b1_EF
    b2_ED = w2_EHD.new_zeros(w2_EHD.shape[::2]) if b2_ED is None else b2_ED
    weights = tuple(w.to(dtype) for w in (w1_EDF, b1_EF, w2_EHD, b2_ED))
    chosen = choose(impl, device, dtype)
    with torch.autocast(device, enabled=False):
        if chosen == "naive":
            return expert_ffn_naive(x_TD.to(dtype), weight_TE, mask_TE, weights, activation)
        if chosen == "grouped_mm":
            pairs = _count(mask_TE, num_pairs)
            return expert_ffn_grouped(x_TD.to(dtype), weight_TE, mask_TE, weights, activation, pairs)
        inputs = (x_TD.to(dtype), weight_TE, mask_TE, *weights)
        keep = torch.is_grad_enabled() and any(value.requires_grad for value in inputs)
        block = block_size(chosen, device, num_pairs, w1_EDF.shape[0])
        # Rows that are kept for the backward pass need a number. Otherwise a bound avoids a synchronisation on a GPU.
        bounded = keep or (chosen == "triton" and num_pairs is not None)
        rows = max_rows(_count(mask_TE, num_pairs), w1_EDF.shape[0], block) if bounded else -1
        return torch.ops.leandit.expert_ffn(*inputs, activation, rows, block, keep, chosen)[0]


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
    """Return FFN_e(x_r) for rows sorted by expert: the second entry, for what has moved the rows itself.

    Expert e has the rows from ends_E[e - 1] up to ends_E[e]; rows after the last end are padding and give 0. Gradients
    reach x and the experts' weights. It is `expert_ffn` with one expert for each row, so all backends have it, and
    nothing waits for the device. Beside the rows that costs about 9 bytes for each row and expert, which is little for
    the few experts that one rank of many holds.
    """
    row_R1 = torch.arange(len(x_RD), device=x_RD.device)[:, None]
    starts_E = torch.nn.functional.pad(ends_E[:-1], (1, 0))
    mask_RE = (row_R1 >= starts_E) & (row_R1 < ends_E)
    ones_RE = x_RD.new_ones(()).expand(mask_RE.shape)
    weights = (w1_EDF, b1_EF, w2_EHD, b2_ED)
    return expert_ffn(x_RD, ones_RE, mask_RE, *weights, activation=activation, num_pairs=len(x_RD), impl=impl)


def _count(mask_TE: Tensor, num_pairs: int | None) -> int:
    return int(mask_TE.sum()) if num_pairs is None else num_pairs


_WEIGHTS = "Tensor w1, Tensor b1, Tensor w2, Tensor b2"
_FORWARD = (
    f"(Tensor x, Tensor weight, Tensor mask, {_WEIGHTS}, str activation, SymInt num_rows, int block, bool keep,"
    " str impl) -> (Tensor, Tensor, Tensor)"
)
_BACKWARD = (
    f"(Tensor grad, Tensor x, Tensor weight, Tensor mask, {_WEIGHTS}, Tensor pre, Tensor hidden, str activation,"
    " int block, str impl) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.custom_op("leandit::expert_ffn", mutates_args=(), schema=_FORWARD)
def _forward(
    x_TD: Tensor,
    weight_TE: Tensor,
    mask_TE: Tensor,
    w1_EDF: Tensor,
    b1_EF: Tensor,
    w2_EHD: Tensor,
    b2_ED: Tensor,
    activation: str,
    num_rows: int,
    block: int,
    keep: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    weights = (w1_EDF, b1_EF, w2_EHD, b2_ED)
    if impl == "triton":
        # Nobody else pays for importing Triton.
        from leandit.ops.expert_ffn import triton_backend

        rows = None if num_rows < 0 else num_rows
        return triton_backend.forward(x_TD, weight_TE, mask_TE, weights, activation, rows, block, keep)
    return loop.forward(x_TD, weight_TE, mask_TE, weights, activation, num_rows if keep else None)


@_forward.register_fake
def _(x_TD: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    _, _, w1_EDF, _, w2_EHD, _, _, num_rows, _, keep, _ = inputs
    kept = num_rows if keep else 0
    widths = w1_EDF.shape[2], w2_EHD.shape[1]
    return x_TD.new_empty(x_TD.shape), x_TD.new_empty(kept, widths[0]), x_TD.new_empty(kept, widths[1])


@torch.library.custom_op("leandit::expert_ffn_backward", mutates_args=(), schema=_BACKWARD)
def _backward(
    grad_TD: Tensor,
    x_TD: Tensor,
    weight_TE: Tensor,
    mask_TE: Tensor,
    w1_EDF: Tensor,
    b1_EF: Tensor,
    w2_EHD: Tensor,
    b2_ED: Tensor,
    pre_RF: Tensor,
    hidden_RH: Tensor,
    activation: str,
    block: int,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    weights = (w1_EDF, b1_EF, w2_EHD, b2_ED)
    kept = (pre_RF, hidden_RH)
    if impl == "triton":
        from leandit.ops.expert_ffn import triton_backend

        return triton_backend.backward(grad_TD, x_TD, weight_TE, mask_TE, weights, kept, activation, block)
    return loop.backward(grad_TD, x_TD, weight_TE, mask_TE, weights, kept, activation)


@_backward.register_fake
def _(grad_TD: Tensor, x_TD: Tensor, weight_TE: Tensor, mask_TE: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return x_TD.new_empty(x_TD.shape), torch.empty_like(weight_TE), *(torch.empty_like(w) for w in inputs[:4])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.activation, _, ctx.block, _, ctx.impl = inputs
    # What is kept for the backward pass has no gradient of its own; zeros for it would be as large as it is.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output[1:])


def _gradients(ctx: Any, grad_TD: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_TD is None:
        return (None,) * 12
    options = (ctx.activation, ctx.block, ctx.impl)
    grads = torch.ops.leandit.expert_ffn_backward(grad_TD.contiguous(), *ctx.saved_tensors, *options)
    grad_x, grad_weight, *grad_weights = grads
    return grad_x, grad_weight, None, *grad_weights, None, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_setup_context)
flops.register()
