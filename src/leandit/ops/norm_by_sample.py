"""Layer normalisation with a weight and a bias per sample, one call of torch per sample: for large samples on a CPU.

Legend: B batch, L tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def norm_by_sample(
    x_BLD: Float[Tensor, "batch tokens dim"],
    weight_BD: Float[Tensor, "batch dim"],
    bias_BD: Float[Tensor, "batch dim"],
    eps: float,
) -> Float[Tensor, "batch tokens dim"]:
    """Return LayerNorm(x) weight + bias. Forward reads x once; backward reads x and the gradient once."""
    return torch.ops.leandit.norm_modulate(x_BLD, weight_BD, bias_BD, eps)[0]


# The schema is explicit, because jaxtyping's checks in tests hide the annotations from torch.
_SCHEMA = "(Tensor x, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor, Tensor)"
_BACKWARD_SCHEMA = (
    "(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor inverse) -> (Tensor, Tensor, Tensor)"
)


@torch.library.custom_op("leandit::norm_modulate", mutates_args=(), schema=_SCHEMA)
def _forward(x_BLD: Tensor, weight_BD: Tensor, bias_BD: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return LayerNorm(x) weight + bias, and the mean and 1 / standard deviation of every token.

    It is one torch layer norm per sample, with the sample's modulation as weight and bias of the norm.
    """
    out_BLD, means, inverses = torch.empty_like(x_BLD), [], []
    for b in range(len(x_BLD)):
        y_LD, mean_L, inverse_L = torch.native_layer_norm(x_BLD[b], x_BLD.shape[2:], weight_BD[b], bias_BD[b], eps)
        out_BLD[b] = y_LD  # still in the cache
        means.append(mean_L)
        inverses.append(inverse_L)
    return out_BLD, torch.stack(means), torch.stack(inverses)


@_forward.register_fake
def _(x_BLD: Tensor, weight_BD: Tensor, bias_BD: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens, _ = x_BLD.shape
    return torch.empty_like(x_BLD), x_BLD.new_empty(batch, tokens, 1), x_BLD.new_empty(batch, tokens, 1)


@torch.library.custom_op("leandit::norm_modulate_backward", mutates_args=(), schema=_BACKWARD_SCHEMA)
def _backward(
    grad_BLD: Tensor, x_BLD: Tensor, weight_BD: Tensor, bias_BD: Tensor, mean_BL: Tensor, inverse_BL: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x_BLD, grad_weight_BD, grad_bias_BD = (torch.empty_like(value) for value in (x_BLD, weight_BD, bias_BD))
    for b in range(len(x_BLD)):
        grad_x_BLD[b], grad_weight_BD[b], grad_bias_BD[b] = torch.ops.aten.native_layer_norm_backward(
            *(grad_BLD[b], x_BLD[b], x_BLD.shape[2:], mean_BL[b], inverse_BL[b]),
            *(weight_BD[b], bias_BD[b], (True, True, True)),
        )
    return grad_x_BLD, grad_weight_BD, grad_bias_BD


@_backward.register_fake
def _(grad_BLD: Tensor, x_BLD: Tensor, weight_BD: Tensor, bias_BD: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
    return torch.empty_like(x_BLD), torch.empty_like(weight_BD), torch.empty_like(bias_BD)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x_BLD, weight_BD, bias_BD, _ = inputs
    # Mean and deviation have no gradient; do not allocate zeros for it.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x_BLD, weight_BD, bias_BD, *output[1:])


def _gradients(ctx: Any, grad_BLD: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_BLD is None:
        return (None,) * 4
    return *torch.ops.leandit.norm_modulate_backward(grad_BLD, *ctx.saved_tensors), None


_forward.register_autograd(_gradients, setup_context=_setup_context)
