"""What a model costs: parameters as the Expert Race paper counts them, FLOPs, and an estimate of memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from leandit.models.backbone import BackboneConfig
from leandit.models.dit_air import DiTAirConfig
from leandit.models.masking import MaskingConfig
from leandit.models.mmdit import MMDiTConfig
from leandit.models.pixart import PixArtConfig


@dataclass(frozen=True)
class ParameterCount:
    """Weight matrices of the blocks with their modulation, as the papers count: no biases, no target heads.

    `activated` counts k of the E experts. `router` is the share of the routers in both. `embedders` are the weight
    matrices outside the blocks: patches, time, label or text, the decoder of masking, and the output.

    Reference: Expert Race, Table 4 (Table 5 leaves the routers out); DiT-Air, Table 1.
    """

    total: int
    activated: int
    router: int
    embedders: int


def count_parameters(config: BackboneConfig) -> ParameterCount:
    """Count on the model itself, built on the meta device."""
    with torch.device("meta"):
        model = config.build()
    total = activated = router = embedders = 0
    for name, parameter in model.named_parameters():
        if (not name.endswith("weight") and ".experts.w" not in name) or ".target_head." in name or parameter.ndim < 2:
            continue
        size = parameter.numel()
        if not name.startswith("blocks."):
            embedders += size
            continue
        total += size
        router += size if ".router." in name else 0
        if ".experts." in name and config.moe is not None:
            size = size * config.moe.k // config.moe.num_experts
        activated += size
    return ParameterCount(total, activated, router, embedders)


def forward_flops(config: BackboneConfig, text_tokens: int = 0, visible_tokens: int | None = None) -> int:
    """Return the FLOPs of one forward pass over one picture, two per multiply-add, matrix products only.

    Per block and picture of L tokens: 8 L d² + 4 L² d for self-attention, 4 L d h for the feed-forward of hidden
    width h (with experts k of width h / split and the shared ones, half as much again for SwiGLU), 2 L (d² + d E) for
    the two-layer router, 2 d² for each modulation vector; embeddings and the output layer come on top. Cross-attention
    to T text tokens adds 4 L d² + 4 T d_text d + 4 L T d; one stream over text and image has L + T tokens, and so have
    two streams, of which the last block computes the image alone.

    `visible_tokens` is L in the blocks where training hides some of a picture's tokens; patches are embedded, and
    the decoder runs, on all of them.
    """
    if config.input_size is None or config.channels is None:
        raise ValueError("FLOPs need input_size and channels: see BackboneConfig.complete")
    tokens = config.grid.tokens if visible_tokens is None else visible_tokens
    blocks = sum(_block_flops(config, index, text_tokens, tokens) for index in range(config.depth))
    return _patch_flops(config, tokens) + _condition_flops(config, text_tokens) + blocks


def _patch_flops(config: BackboneConfig, tokens: int) -> int:
    """Patches to tokens and back, and the final modulation, for which adaLN-single has no weights."""
    patch_in = (config.channels or 0) * config.patch_size**2
    patch_out = patch_in * (2 if config.learned_sigma else 1)
    modulation = 0 if isinstance(config, PixArtConfig) and config.adaln == "single" else 4 * config.dim**2
    embedding = 2 * config.grid.tokens * config.dim * patch_in
    if not isinstance(config, PixArtConfig) or config.masking is None:
        return embedding + 2 * tokens * config.dim * patch_out + modulation
    width = config.masking.decoder_dim
    return embedding + 2 * tokens * config.dim * width + modulation + _decoder_flops(config, config.masking, patch_out)


def _decoder_flops(config: PixArtConfig, masking: MaskingConfig, patch_out: int) -> int:
    """Its blocks, each modulated by a condition of the model's width, and its last layer."""
    d, tokens = masking.decoder_dim, config.grid.tokens
    modulation = 2 * config.dim * d * (6 * masking.decoder_depth + 2)
    block = 8 * tokens * d * d + 4 * tokens * tokens * d + 4 * tokens * d * int(d * config.mlp_ratio)
    return masking.decoder_depth * block + modulation + 2 * tokens * d * patch_out


def _condition_flops(config: BackboneConfig, text_tokens: int) -> int:
    """The two-layer networks of time, pooled text and text tokens."""
    d = config.dim
    sinusoids = (config.time_dim or d) if isinstance(config, PixArtConfig) else 256
    flops = 2 * d * (sinusoids + d)
    if isinstance(config, MMDiTConfig | DiTAirConfig):
        flops += 2 * d * ((config.pooled_dim or 0) + d)
    if config.conditions_on_text and not (isinstance(config, PixArtConfig) and not config.project_text):
        flops += 2 * text_tokens * d * ((config.text_dim or 0) + d)
    return flops


def _block_flops(config: BackboneConfig, index: int, text_tokens: int, tokens: int) -> int:
    feed_forward = _feed_forward_flops(config, index, tokens) + _modulation_flops(config, index)
    if isinstance(config, MMDiTConfig | DiTAirConfig):
        return _joint_attention_flops(config, index, text_tokens, tokens) + feed_forward
    if isinstance(config, PixArtConfig):
        return _pixart_attention_flops(config, text_tokens, tokens) + feed_forward
    return 8 * tokens * config.dim**2 + 4 * tokens * tokens * config.dim + feed_forward


def _modulation_flops(config: BackboneConfig, index: int) -> int:
    """The map from the condition to modulation vectors, which layers that share it compute once."""
    shared, vectors = config.sharing != "none", 6
    if isinstance(config, MMDiTConfig | DiTAirConfig):
        vectors = 12
    elif isinstance(config, PixArtConfig):
        shared, vectors = (True, 6) if config.adaln == "single" else (shared, 4)
    return 0 if shared and index else 2 * vectors * config.dim**2


def _joint_attention_flops(config: MMDiTConfig | DiTAirConfig, index: int, text_tokens: int, tokens: int) -> int:
    """Attention over text and image, and the text's feed-forward; the last block returns no text."""
    d, joint = config.dim, tokens + text_tokens
    returned = tokens if index == config.depth - 1 else joint
    text = 4 * (returned - tokens) * d * config.hidden
    return 6 * joint * d * d + 4 * returned * joint * d + 2 * returned * d * d + text


def _pixart_attention_flops(config: PixArtConfig, text_tokens: int, tokens: int) -> int:
    """Self-attention and cross-attention."""
    d = config.dim
    kv = d * (config.kv_heads or config.heads) // config.heads
    width = d if config.project_text else config.text_dim or 0
    own = 2 * tokens * (2 * d * d + 2 * d * kv) + 4 * tokens * tokens * d
    cross = 4 * tokens * d * d + 4 * text_tokens * width * kv + 4 * tokens * text_tokens * d
    return own + cross


def _feed_forward_flops(config: BackboneConfig, index: int, tokens: int) -> int:
    d, moe = config.dim, config.moe
    if moe is None or not moe.in_block(index):
        return 4 * tokens * d * config.hidden
    matrices = 3 if moe.expert == "swiglu" else 2
    hidden = moe.k * moe.expert_hidden(config.hidden) + moe.shared_hidden(config.hidden)
    return 2 * tokens * (matrices * d * hidden + moe.router_size(d))
