"""Mark a tensor that selective recomputation must keep."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def kept(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return a copy of x. The copy is an operator of its own, so that selective recomputation can find it by name.

    A router's logits can differ by a rounding error if they are computed again, especially in compiled code. The
    backward pass could then use other experts than the forward pass.
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
