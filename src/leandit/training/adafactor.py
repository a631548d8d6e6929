"""Adafactor: second moments of a matrix as one number per row and per column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from leandit.training.chunked import ChunkedOptimizer


class Adafactor(ChunkedOptimizer):
    """Adafactor with a first moment and constant decays, as in axlearn; all parts of the paper's form are options.

    For a gradient G of n rows and m columns at step t, with b2 constant or 1 - t^beta2_power:

        R <- b2 R + (1 - b2) mean over columns of (G² + eps)       one number per row
        C <- b2 C + (1 - b2) mean over rows of (G² + eps)          one number per column
        U = G / sqrt(R C / mean(R))
        U <- U / max(1, rms(U) / clip_threshold)
        M <- b1 M + (1 - b1) lr s U                                 s = max(min_scale, rms(W)), or 1
        W <- (1 - lr weight_decay) W - M

    Without b1, M is lr s U. A vector, and a matrix with fewer than `min_factored_size` rows or columns, keeps the mean
    of G² + eps for each weight. A tensor with more dimensions is a stack of matrices, such as the weights of experts:
    each matrix has its own R and C, and rms(U) is over the whole stack. Decays are not corrected for their start at 0.
    A constant b2 makes U too large at first, which the clipping removes.

    With s = 1 an update has the root mean square lr at most. With s = rms(W), tensors that start at 0 move min_scale
    times as fast. axlearn recommends s = 1.

    Reference: Shazeer and Stern, "Adafactor" (1804.04235), algorithms 4 and 5, section 7; axlearn, the library that
    DiT-Air was trained with, `adafactor_optimizer` (order of the operations, the rate inside the first moment).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        beta1: float | None,
        beta2: float | None,
        beta2_power: float,
        clip_threshold: float | None,
        scale_by_parameter: bool,
        min_scale: float,
        eps: float,
        min_factored_size: int | None,
        weight_decay: float,
    ) -> None:
        options: dict[str, Any] = {"lr": lr, "beta1": beta1, "beta2": beta2, "beta2_power": beta2_power}
        options |= {"clip_threshold": clip_threshold, "scale_by_parameter": scale_by_parameter, "min_scale": min_scale}
        options |= {"eps": eps, "min_factored_size": min_factored_size, "weight_decay": weight_decay}
        super().__init__(params, options)

    def update(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """Update these parameters; see the class."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter].update(_initial(parameter, group))
        states = [self.state[parameter] for parameter in parameters]
        updates = self._normalised(states, gradients, group)
        if group["clip_threshold"] is not None:
            excess = torch._foreach_norm(updates)
            torch._foreach_div_(excess, [u.numel() ** 0.5 * group["clip_threshold"] for u in updates])
            torch._foreach_clamp_min_(excess, 1.0)
            torch._foreach_div_(updates, excess)
        torch._foreach_mul_(updates, group["lr"])
        if group["scale_by_parameter"]:
            scales = torch._foreach_norm(parameters)
            torch._foreach_div_(scales, [p.numel() ** 0.5 for p in parameters])
            torch._foreach_clamp_min_(scales, group["min_scale"])
            torch._foreach_mul_(updates, scales)
        if group["beta1"] is not None:
            moments = [state["momentum"] for state in states]
            torch._foreach_lerp_(moments, updates, 1 - group["beta1"])
            updates = moments
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_sub_(parameters, updates)

    def _normalised(
        self, states: list[dict[str, Tensor]], gradients: list[Tensor], group: dict[str, Any]
    ) -> list[Tensor]:
        """Update the second moments, and return the gradients over their square roots."""
        if group["beta2"] is None:
            torch._foreach_add_([state["step"] for state in states], 1.0)
        averages, squares, shares = [], [], []
        for state, gradient in zip(states, gradients, strict=True):
            for slot, dim in (("row_var", -1), ("col_var", -2)) if "row_var" in state else (("variance", None),):
                averages.append(state[slot])
                if dim is None:
                    squares.append(gradient.square())
                else:
                    # The mean of the squares without a temporary tensor of the gradient's size.
                    norm = torch.linalg.vector_norm(gradient, dim=dim, keepdim=True)
                    squares.append(norm.square_().div_(gradient.shape[dim]))
                if group["beta2"] is None:
                    # 1 - b2 as a tensor, so that the host does not read the step from the device.
                    shares.append(state["step"].pow(group["beta2_power"]))
        torch._foreach_add_(squares, group["eps"])
        torch._foreach_lerp_(averages, squares, shares if group["beta2"] is None else 1 - group["beta2"])
        updates = []
        for state, gradient in zip(states, gradients, strict=True):
            if "row_var" in state:
                rows, columns = state["row_var"], state["col_var"]
                # Two roots instead of the root of a quotient, which can be too small for float32.
                update = gradient * rows.rsqrt().mul_(rows.mean(dim=-2, keepdim=True).sqrt_())
                updates.append(update.mul_(columns.rsqrt()))
            else:
                updates.append(gradient * state["variance"].rsqrt())
        return updates


def _initial(parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    """Return the state of a parameter before its first step. The names are those of torch's Adafactor."""
    state = {}
    least = group["min_factored_size"]
    if least is not None and parameter.ndim >= 2 and min(parameter.shape[-2:]) >= least:
        state["row_var"] = torch.zeros_like(parameter[..., :1])
        state["col_var"] = torch.zeros_like(parameter[..., :1, :])
    else:
        state["variance"] = torch.zeros_like(parameter)
    if group["beta1"] is not None:
        state["momentum"] = torch.zeros_like(parameter)
    if group["beta2"] is None:
        state["step"] = parameter.new_zeros(())
    return state
