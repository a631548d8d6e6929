"""Embeddings of the time and of the class label."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.nn.linear import Linear
from leandit.ops import row_stable_linear

_MAX_PERIOD = 10_000
_TIME_SCALE = 1000  # t in [0, 1] is embedded as the step of a 1,000-step schedule, as public checkpoints expect


def sinusoids(
    t: Float[Tensor, " batch"], num_frequencies: int, freq_shift: float
) -> Float[Tensor, "batch {2*num_frequencies}"]:
    """Return [cos(1000 t w_i), sin(1000 t w_i)] with w_i = 10000^(-i / (n - freq_shift)), i = 0..n-1.

    Reference: DiT uses freq_shift 0; diffusers' DiT pipeline uses 1.
    """
    index = torch.arange(num_frequencies, device=t.device, dtype=torch.float32)
    frequency = torch.exp(-math.log(_MAX_PERIOD) * index / (num_frequencies - freq_shift))
    angle = _TIME_SCALE * t.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Sinusoids -> Linear -> SiLU -> Linear."""

    def __init__(self, dim: int, freq_shift: float, num_sinusoids: int = 256) -> None:
        super().__init__()
        self.num_frequencies = num_sinusoids // 2
        self.freq_shift = freq_shift
        self.first = Linear(num_sinusoids, dim)
        self.second = Linear(dim, dim)

    def forward(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        hidden = sinusoids(t, self.num_frequencies, self.freq_shift)
        hidden = F.silu(row_stable_linear(hidden, self.first.weight, self.first.bias))
        return row_stable_linear(hidden, self.second.weight, self.second.bias)


class LabelEmbedding(nn.Module):
    """One vector per class and, as the last row, one for "no label", which guidance and label dropout use."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        # from_pretrained, because nn.Embedding(...) would draw weights that `init_weights` draws again.
        self.table = nn.Embedding.from_pretrained(torch.empty(num_classes + 1, dim), freeze=False)

    def forward(self, label: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Embed labels 0..num_classes-1; any negative label stands for "no label"."""
        return self.table(torch.where(label < 0, self.num_classes, label))
