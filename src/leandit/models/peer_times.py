"""Other conventions of the embedded time, folded into the weights: what peers' checkpoints need, and nothing else."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def fold_time(
    weight: Float[Tensor, "dim sinusoids"], freq_shift: float = 0.0, *, offset: float, backwards: bool = False
) -> Float[Tensor, "dim sinusoids"]:
    """Return `time_embedding.first.weight` for a model whose peer embeds the angle offset + a, or offset - a.

    a = time_scale * t is what LeanDiT embeds. A peer with the weight W computes W [cos(p w_i), sin(p w_i)] for its own
    angle p, and the returned V has V [cos(a w_i), sin(a w_i)] = W [cos(p w_i), sin(p w_i)] for every a: a rotation of
    each pair of columns by offset * w_i, mirrored if time runs `backwards`. The frequencies w_i are those of
    `leandit.nn.embeddings.sinusoids`. Computed in float64; the result has the dtype of `weight`.

    - DDPM of DiT, PixArt and diffusers embeds step i at t = (i + 1) / 1000: offset -1.
    - SiT and DiffMoE embed 1 - t: `model.time_scale` 1, offset 1 and `backwards`.

    To export, fold with -offset, or with the same offset if time runs backwards.
    """
    count = weight.shape[1] // 2
    index = torch.arange(count, device=weight.device, dtype=torch.float64)
    turn = offset * torch.exp(-math.log(10_000) * index / (count - freq_shift))
    of_cos, of_sin = weight.double().chunk(2, dim=1)
    cos, sin = turn.cos(), turn.sin()
    sign = -1 if backwards else 1
    # cos(turn +- x) = cos(turn) cos(x) -+ sin(turn) sin(x), and sin(turn +- x) = sin(turn) cos(x) +- cos(turn) sin(x).
    folded = torch.cat([of_cos * cos + of_sin * sin, sign * (of_sin * cos - of_cos * sin)], dim=1)
    return folded.to(weight.dtype)
