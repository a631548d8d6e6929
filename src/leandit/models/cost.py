"""What a model costs: parameters as the Expert Race paper counts them, FLOPs, and an estimate of memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

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


def training_memory(
    parameters: int, config: DiTConfig, micro_batch: int, *, bf16: bool, activation_checkpointing: bool
) -> int:
    """Return a rough estimate of the bytes that a training step needs, beside what Python and torch take.

    Weights, gradients, two optimiser moments and the EMA take 20 bytes a parameter. The backward pass keeps about
    14 d + 2 h numbers per token and block, with experts 16 d + 3 k d + 2 h, at 4 bytes; under bf16 autocast copies
    make that a quarter more, and the weights take 2 bytes more. With activation checkpointing it is one block's
    worth and the residual stream. Measured on small models it came out 5 to 35 % low.
    """
    tokens = micro_batch * ((config.input_size or 0) // config.patch_size) ** 2
    width = 14 * config.dim if config.moe is None else (16 + 3 * config.moe.k) * config.dim
    per_block = 4 * tokens * (width + 2 * config.hidden)
    kept = per_block + 4 * tokens * config.dim * config.depth if activation_checkpointing else per_block * config.depth
    return int(parameters * (22 if bf16 else 20) + kept * (1.25 if bf16 else 1.0))
