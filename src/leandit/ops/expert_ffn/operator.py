"""The operator of `expert_ffn`, as torch sees it: forward, backward, shapes for torch.compile.

Gather, two products, activation, weights and scatter are one operator. So torch.compile does not see the number of
pairs, and no backend writes intermediate results to memory that it can fuse.

Legend: T tokens, R rows sorted by expert, E experts, D width, F width after the first map (2 H for swiglu), H hidden.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leandit.ops.backends import load

BACKENDS = {"loop": "leandit.ops.expert_ffn.loop", "triton": "leandit.ops.expert_ffn.triton_backend"}
"""Modules with `forward` and `backward`, by the name of the backend; see `load`.

    forward(x_TD, weight_TE, mask_TE, weights, activation, num_rows, block, keep) -> (y_TD, pre_RF, hidden_RH)
    backward(grad_TD, x_TD, weight_TE, mask_TE, weights, (pre_RF, hidden_RH), activation, block)
        -> gradients of x, weight_TE and the four weights

`num_rows` is the number of rows including padding to blocks of `block` rows per expert; None if it is not known. `pre`
and `hidden` are the rows before and after the activation, for the backward pass; without `keep` they have 0 rows.
"""

_FORWARD = (
    "(Tensor x, Tensor weight, Tensor mask, Tensor[] weights, str activation, SymInt num_rows, int block, bool keep,"
    " str impl) -> (Tensor, Tensor, Tensor)"
)
_BACKWARD = (
    "(Tensor grad, Tensor x, Tensor weight, Tensor mask, Tensor[] weights, Tensor pre, Tensor hidden, str activation,"
    " int block, str impl) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)

# Low-precision matrix libraries compile a kernel for each new number of rows, in about a millisecond. Multiples of a
# block repeat; exact numbers of pairs do not. A block also has enough rows that a row does not depend on the number of
# rows (see `leandit.ops.linear`).
BLOCK = 16


def max_rows(num_pairs: int, num_experts: int, block: int = BLOCK) -> int:
    """Return a number of rows that is enough for `num_pairs` pairs, for every distribution over the experts."""
    return num_pairs + num_experts * (block - 1)


@torch.library.custom_op("leandit::expert_ffn", mutates_args=(), schema=_FORWARD)
def _forward(x_TD: Tensor, weight_TE: Tensor, mask_TE: Tensor, weights: list[Tensor], *options: Any) -> Any:
    activation, num_rows, block, keep, impl = options
    rows = None if num_rows < 0 else num_rows
    return load(BACKENDS[impl]).forward(x_TD, weight_TE, mask_TE, tuple(weights), activation, rows, block, keep)


@_forward.register_fake
def _(x_TD: Tensor, weight_TE: Tensor, mask_TE: Tensor, weights: list[Tensor], *rest: Any) -> tuple[Tensor, ...]:
    _, num_rows, _, keep, _ = rest
    rows, (w1_EDF, _, w2_EHD, _) = num_rows if keep else 0, weights
    return torch.empty_like(x_TD), x_TD.new_empty(rows, w1_EDF.shape[2]), x_TD.new_empty(rows, w2_EHD.shape[1])


@torch.library.custom_op("leandit::expert_ffn_backward", mutates_args=(), schema=_BACKWARD)
def _backward(grad_TD: Tensor, x_TD: Tensor, weight_TE: Tensor, mask_TE: Tensor, *rest: Any) -> Any:
    weights, pre_RF, hidden_RH, activation, block, impl = rest
    backward = load(BACKENDS[impl]).backward
    return backward(grad_TD, x_TD, weight_TE, mask_TE, tuple(weights), (pre_RF, hidden_RH), activation, block)


@_backward.register_fake
def _(grad_TD: Tensor, x_TD: Tensor, weight_TE: Tensor, mask_TE: Tensor, weights: list[Tensor], *_: Any) -> Any:
    return tuple(torch.empty_like(value) for value in (x_TD, weight_TE, *weights))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x_TD, weight_TE, mask_TE, weights, ctx.activation, _, ctx.block, _, ctx.impl = inputs
    # The tensors that are kept for the backward pass have no gradient; do not allocate zeros for it.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x_TD, weight_TE, mask_TE, *weights, *output[1:])


def _gradients(ctx: Any, grad_TD: Tensor | None, *_: Tensor | None) -> tuple[Any, ...]:
    *inputs, w1, b1, w2, b2, pre, hidden = ctx.saved_tensors
    if grad_TD is None:
        return None, None, None, [None] * 4, None, None, None, None, None
    options = ([w1, b1, w2, b2], pre, hidden, ctx.activation, ctx.block, ctx.impl)
    grad_x, grad_weight, *grads = torch.ops.leandit.expert_ffn_backward(grad_TD.contiguous(), *inputs, *options)
    return grad_x, grad_weight, None, grads, None, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_setup_context)
