"""RMSProp with momentum: the average of gradients over the root of their mean square."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from leandit.training.chunked import ChunkedOptimizer


class RMSProp(ChunkedOptimizer):
    """RMSProp with damped momentum.

        V <- decay V + (1 - decay) G²
        U = G / (sqrt(V) + eps), or G / sqrt(V + eps)
        M <- momentum M + U
        W <- (1 - lr weight_decay) W - lr (1 - momentum) M

    (1 - momentum) M is a moving average of U, so a gradient of constant sign moves a weight by lr in a step. Not
    `damped`, the factor is missing, as in torch, TensorFlow and optax: the step is 1 / (1 - momentum) times as large,
    10 times with a momentum of 0.9. V is not corrected for its start at 0: the first U is 1 / sqrt(1 - decay).

    torch.optim.RMSprop damps no momentum, has no eps inside the root, and adds weight decay to the gradient, so that
    the normalisation takes it away again.

    Reference: Hinton, "Neural networks for machine learning", lecture 6.5 (2012).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        damped: bool,
        decay: float,
        eps: float,
        eps_in_root: bool,
        weight_decay: float,
    ) -> None:
        options: dict[str, Any] = {"lr": lr, "momentum": momentum, "damped": damped, "decay": decay}
        options |= {"eps": eps, "eps_in_root": eps_in_root, "weight_decay": weight_decay}
        super().__init__(params, options)

    def update(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """Update these parameters; see the class."""
        decay, momentum, rate = group["decay"], group["momentum"], group["lr"]
        squares, sums = [], []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["square_avg"] = torch.zeros_like(parameter)
                if momentum:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
            squares.append(state["square_avg"])
            if momentum:
                sums.append(state["momentum_buffer"])
        torch._foreach_mul_(squares, decay)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - decay)
        if group["eps_in_root"]:
            roots = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(roots)
        else:
            roots = torch._foreach_sqrt(squares)
            torch._foreach_add_(roots, group["eps"])
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        if momentum:
            torch._foreach_mul_(sums, momentum)
            torch._foreach_addcdiv_(sums, gradients, roots)
            torch._foreach_add_(parameters, sums, alpha=-rate * (1 - momentum if group["damped"] else 1))
        else:
            torch._foreach_addcdiv_(parameters, gradients, roots, -rate)
