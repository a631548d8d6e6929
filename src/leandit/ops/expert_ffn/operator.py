"""The operator of `expert_ffn`, as torch sees it: forward, backward, shapes for torch.compile, FLOPs.

Gather, two products, activation, weights and scatter are one operator. So torch.compile does not see the number of
pairs, and no backend writes intermediate results to memory that it can fuse.

Legend: T tokens, R rows sorted by expert, E experts, D width, F width after the first map (2 H for swiglu), H hidden
width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from leandit.ops.expert_ffn import loop
from leandit.ops.expert_ffn.layout import max_rows

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
        # Imported here, so that other backends do not import Triton.
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
    # The tensors that are kept for the backward pass have no gradient; do not allocate zeros for it.
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


@register_flop_formula(torch.ops.leandit.expert_ffn, get_raw=True)
def _forward_flops(
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
    """Two products over the pairs, without padding.

    The number of rows gives an upper bound on the pairs. Without it the mask is counted, so it must not be a fake
    tensor.
    """
    pairs = num_rows - max_rows(0, len(w1), block) if num_rows >= 0 else int(mask.sum())
    return 2 * pairs * (w1[0].numel() + w2[0].numel())


@register_flop_formula(torch.ops.leandit.expert_ffn_backward, get_raw=True)
def _backward_flops(grad: Tensor, *inputs: Any, **kwargs: Any) -> int:
    """Four products over the pairs. The rows that the forward pass kept give their number."""
    *tensors, pre, _, activation, block, _ = inputs
    return 2 * _forward_flops(*tensors, activation, len(pre), block)
