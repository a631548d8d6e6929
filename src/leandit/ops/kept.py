"""Mark what is kept when a layer is computed again in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def kept(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return a copy of x, as an operator of its own, which selective recomputation knows by its name.

    A router's logits that are computed again can differ by a rounding error, above all in compiled code. One flipped
    pair would give the backward pass other experts than the forward pass had.
    """
    return torch.ops.leandit.kept(x)


@torch.library.custom_op("leandit::kept", mutates_args=(), schema="(Tensor x) -> Tensor")
def _kept(x: Tensor) -> Tensor:
    return x.clone()


@_kept.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _gradient(ctx: Any, grad: Tensor | None) -> Tensor | None:
    return grad


_kept.register_autograd(_gradient)
