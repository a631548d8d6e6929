"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class EMA:
    """ema <- d ema + (1 - d) weight, with d = min(decay, (1 + step) / (10 + step)). Buffers are copied.

    The small d of early steps removes the random initial weights from the averages of short runs. `tensors` is a state
    dict for sampling: it also contains the thresholds.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the averages after a step. The first step is 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        # Weights that two modules share have two names in a state dict, and an average for each.
        parameters = dict(model.named_parameters(remove_duplicate=False))
        real = {name: p.detach() for name, p in parameters.items() if p.is_floating_point()}
        torch._foreach_lerp_([self.tensors[name] for name in real], list(real.values()), 1 - decay)
        for name in parameters.keys() - real.keys():
            self.tensors[name].copy_(parameters[name])
        for name, buffer in model.named_buffers():
            if name in self.tensors:
                self.tensors[name].copy_(buffer)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace the averages by saved ones."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
