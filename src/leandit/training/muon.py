"""Muon: an optimiser that orthogonalises the momentum of matrices before the update."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Coefficients of the quintic that moves singular values close to 1 in a few iterations (Jordan et al., 2024).
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Float[Tensor, "stack rows cols"], iterations: int) -> Float[Tensor, "stack rows cols"]:
    """Return the matrices with all singular values close to 1, by Newton-Schulz iterations in bf16.

    X <- a X + (b A + c A²) X with A = X Xᵀ, starting from X / |X|. A has the size of the shorter side.

    Reference: Jordan et al., "Muon" (2024).
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    # Batched bf16 products are fast only on contiguous tensors.
    x = (matrices.mT if tall else matrices).bfloat16().contiguous()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = torch.bmm(x, x.mT.contiguous())
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """u = orthogonalize(Nesterov momentum of the gradient); W <- (1 - lr wd) W - lr 0.2 sqrt(max(rows, cols)) u.

    The factor gives updates the same root mean square as AdamW's, so both can use one learning rate. A parameter with
    three dimensions is a stack of matrices, such as the weights of experts. torch.optim.Muon accepts two dimensions
    only. Matrices of the same shape are orthogonalised together.

    Reference: Jordan et al., "Muon" (2024); Liu et al., "Muon is scalable for LLM training" (2502.16982), eq. 4.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float, iterations: int
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "iterations": iterations}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        if closure is not None:
            raise NotImplementedError("Muon does not support a closure")
        for group in self.param_groups:
            shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    direction = self._momentum(parameter, group["momentum"])
                    shapes.setdefault(parameter.shape[-2:], []).append((parameter, direction))
            for shape, members in shapes.items():
                _move(shape, members, group)

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)  # type: ignore[union-attr]


def _move(shape: torch.Size, members: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
    stacked = torch.cat([direction.reshape(-1, *shape) for _, direction in members])
    updates = orthogonalize(stacked, group["iterations"])
    rate = group["lr"] * 0.2 * max(shape) ** 0.5
    start = 0
    for parameter, _ in members:
        count = parameter.numel() // (shape[0] * shape[1])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(updates[start : start + count].reshape(parameter.shape), alpha=rate)
        start += count
