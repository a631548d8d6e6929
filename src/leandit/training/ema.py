"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class EMA:
    """ema <- d ema + (1 - d) weight, with d = min(decay, (1 + step) / (10 + step)); buffers are copied.

    The ramp keeps the random start out of short runs. It keeps fp32 copies beside the model, thresholds included,
    so `tensors` is a state dict to sample from.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model after the step with this index, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(model.named_parameters())
        averages = [self.tensors[name] for name in parameters]
        torch._foreach_lerp_(averages, [p.detach() for p in parameters.values()], 1 - decay)
        for name, buffer in model.named_buffers():
            if name in self.tensors:
                self.tensors[name].copy_(buffer)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over saved averages."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
