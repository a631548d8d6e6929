"""What a model costs: parameters as the Expert Race paper counts them, FLOPs, and an estimate of memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from leandit.models.dit import DiTConfig


@dataclass(frozen=True)
class ParameterCount:
    """Weight matrices of the blocks, as in the paper: no biases, no embeddings, no target heads.

    `activated` counts k of the E experts. `router` is the share of the routers in both.

    Reference: Expert Race, Table 4; Table 5 leaves the routers out.
    """

    total: int
    activated: int
    router: int


def count_parameters(config: DiTConfig) -> ParameterCount:
    """Count on the model itself, built on the meta device."""
    with torch.device("meta"):
        model = config.build()
    total = activated = router = 0
    for name, parameter in model.blocks.named_parameters():
        if (not name.endswith("weight") and ".experts.w" not in name) or ".target_head." in name or parameter.ndim < 2:
            continue
        size = parameter.numel()
        total += size
        router += size if ".router." in name else 0
        if ".experts." in name and config.moe is not None:
            size = size * config.moe.k // config.moe.num_experts
        activated += size
    return ParameterCount(total, activated, router)


def forward_flops(config: DiTConfig) -> int:
    """Return the FLOPs of one forward pass over one picture, two per multiply-add, matrix products only.

    Per block and picture of L tokens: 8 L d² + 4 L² d for attention, 4 L d h for the feed-forward of hidden width
    h (k experts of width h / split with experts), 2 L (d² + d E) for the two-layer router, 12 d² for the
    modulation; embeddings and the output layer come on top.
    """
    if config.input_size is None or config.channels is None:
        raise ValueError("FLOPs need input_size and channels: see DiTConfig.complete")
    d = config.dim
    tokens = (config.input_size // config.patch_size) ** 2
    patch_in = config.channels * config.patch_size**2
    patch_out = patch_in * (2 if config.learned_sigma else 1)
    once = 2 * tokens * d * (patch_in + patch_out) + 2 * (256 * d + d * d) + 2 * 2 * d * d
    blocks = sum(_block_flops(config, index, tokens) for index in range(config.depth))
    return once + blocks


def _block_flops(config: DiTConfig, index: int, tokens: int) -> int:
    d = config.dim
    attention = 8 * tokens * d * d + 4 * tokens * tokens * d
    modulation = 12 * d * d
    if config.moe is None or not config.moe.in_block(index):
        return attention + modulation + 4 * tokens * d * config.hidden
    moe = config.moe
    experts = moe.k + (1 if moe.shared_expert else 0)
    feed_forward = 4 * tokens * d * moe.expert_hidden(config.hidden) * experts
    hidden_layer = d * d if moe.router == "mlp" else 0
    return attention + modulation + feed_forward + 2 * tokens * (hidden_layer + d * moe.num_experts)


def training_memory(model: nn.Module, config: DiTConfig, micro_batch: int, checkpointing: bool) -> int:
    """Return a rough estimate of the bytes that a training step needs.

    Weights, gradients, two optimiser moments and the EMA at 4 bytes each; activations as about 40 d bytes per
    token and block of what plain torch stores for the backward pass, plus the attention weights where they are
    materialised, or one block's worth and the residual stream with activation checkpointing.
    """
    parameters = sum(p.numel() for p in model.parameters())
    tokens = ((config.input_size or 0) // config.patch_size) ** 2 * micro_batch
    hidden = 2 * config.hidden * (2 if config.moe else 1)
    per_block = 4 * tokens * (14 * config.dim + hidden)
    blocks = 1 if checkpointing else config.depth
    return 20 * parameters + blocks * per_block + 4 * tokens * config.dim * config.depth
