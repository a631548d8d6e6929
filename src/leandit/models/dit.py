"""DiT and Race-DiT: a class-conditional transformer over patches, dense or with experts in its blocks.

Reference: DiT (arXiv 2212.09748); Expert Race (arXiv 2503.16057), section on the architecture.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from leandit.config import Config
from leandit.models.records import BackboneOutput, Conditioning
from leandit.moe import Experts, MoEConfig, MoELayer, RouterOutput, Threshold
from leandit.nn import (
    AdaLN,
    FeedForward,
    FinalLayer,
    LabelEmbedding,
    Linear,
    SelfAttention,
    TimestepEmbedding,
    modulate,
    sincos_positions,
)
from leandit.ops.attention import AttentionImpl


class DiTConfig(Config):
    """A DiT; with `moe` set, a Race-DiT or one of its baselines. The default is DiT-S/2."""

    type: Literal["dit"] = "dit"
    dim: int = Field(384, ge=4)
    depth: int = Field(12, ge=1)
    heads: int = Field(6, ge=1)
    patch_size: int = Field(2, ge=1)
    # Height and width of the input, pixels or latents; null takes the data's.
    input_size: int | None = Field(None, ge=1)
    # Channels of the input; null takes the data's.
    channels: int | None = Field(None, ge=1)
    # Classes to condition on; 0 is an unconditional model, null takes the data's.
    num_classes: int | None = Field(None, ge=0)
    # Hidden width of the dense feed-forward, in multiples of dim.
    mlp_ratio: float = Field(4.0, gt=0)
    # RMS normalisation of queries and keys.
    qk_norm: bool = False
    # Predict a variance beside the mean: twice the output channels.
    learned_sigma: bool = False
    # 0 in DiT's own code, 1 in diffusers' port; public checkpoints disagree.
    timestep_freq_shift: float = Field(0.0, ge=0, lt=128)
    # 1e-6 in DiT's own code, 1e-5 in diffusers' port; public checkpoints disagree.
    norm_eps: float = Field(1e-6, gt=0)
    attention_impl: AttentionImpl = "auto"
    # Experts in place of the dense feed-forward; null is a dense model.
    moe: MoEConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.dim % self.heads:
            raise ValueError(f"dim = {self.dim} is not divisible by heads = {self.heads}")
        if self.dim % 4:
            raise ValueError(f"dim = {self.dim} is not divisible by 4, which sin-cos positions need")
        if self.input_size is not None and self.input_size % self.patch_size:
            raise ValueError(f"input_size = {self.input_size} is not divisible by patch_size = {self.patch_size}")
        if self.hidden < 1:
            raise ValueError(f"mlp_ratio = {self.mlp_ratio} leaves a dim of {self.dim} without a hidden unit")
        if self.moe is not None:
            self.moe.expert_hidden(self.hidden)
            if self.moe.every > self.depth:
                raise ValueError(
                    f"moe.every = {self.moe.every} leaves no block with experts in a depth of {self.depth}"
                )
        return self

    @property
    def hidden(self) -> int:
        """Hidden width of the dense feed-forward."""
        return int(self.dim * self.mlp_ratio)

    def complete(self, input_size: int, channels: int, num_classes: int) -> DiTConfig:
        """Return a copy with what was left to the data filled in."""
        given = {"input_size": input_size, "channels": channels, "num_classes": num_classes}
        return self.replace(**{key: value for key, value in given.items() if getattr(self, key) is None})

    def build(self) -> DiT:
        """Return the model with initialised weights; on the meta device it costs no memory."""
        return DiT(self)


class DiTBlock(nn.Module):
    """x + gate attention(modulated x), then x + gate feed_forward(modulated x), where experts may do the latter."""

    def __init__(self, config: DiTConfig, index: int, target_dim: int) -> None:
        super().__init__()
        dim, eps = config.dim, config.norm_eps
        self.adaln = AdaLN(dim, 6)
        self.norm1 = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.attention = SelfAttention(dim, config.heads, config.qk_norm, eps, config.attention_impl)
        self.norm2 = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        has_experts = config.moe is not None and config.moe.in_block(index)
        self.moe = MoELayer(config.moe, dim, config.hidden, target_dim) if has_experts and config.moe else None
        self.feed_forward = None if self.moe else FeedForward(dim, config.hidden)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], condition: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch tokens dim"], RouterOutput | None]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaln(condition)
        x = x + gate1[:, None] * self.attention(modulate(self.norm1(x), shift1, scale1))
        modulated = modulate(self.norm2(x), shift2, scale2)
        if self.moe is not None:
            y, routing = self.moe(modulated)
        else:
            assert self.feed_forward is not None
            y, routing = self.feed_forward(modulated), None
        return x + gate2[:, None] * y, routing


class DiT(nn.Module):
    """Patchify, add positions, condition on time and label through AdaLN-Zero blocks, map back to patches.

    `prediction` has the input's shape (twice its channels with `learned_sigma`); what it predicts is the
    objective's choice.
    """

    positions: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        if config.input_size is None or config.channels is None or config.num_classes is None:
            raise ValueError("a DiT needs input_size, channels and num_classes: see DiTConfig.complete")
        self.config = config
        self.activation_checkpointing = False
        self.grid = config.input_size // config.patch_size
        self.out_channels = config.channels * (2 if config.learned_sigma else 1)
        patch_area = config.patch_size**2
        self.patch_embedding = Linear(config.channels * patch_area, config.dim)
        self.register_buffer("positions", torch.empty(self.grid**2, config.dim), persistent=False)
        self.time_embedding = TimestepEmbedding(config.dim, config.timestep_freq_shift)
        self.label_embedding = LabelEmbedding(config.num_classes, config.dim) if config.num_classes else None
        target_dim = config.channels * patch_area
        self.blocks = nn.ModuleList(DiTBlock(config, index, target_dim) for index in range(config.depth))
        self.final = FinalLayer(config.dim, self.out_channels * patch_area, config.norm_eps)
        if not self.positions.is_meta:
            self.init_weights()

    def init_weights(self) -> None:
        """Xavier-uniform matrices, N(0, 0.02) embeddings and time MLP, zero AdaLN and output, as in DiT.

        Sets every parameter and buffer, so that a model built on the meta device is complete after
        `model.to_empty(device=...)` and this.
        """
        self.positions.copy_(sincos_positions(self.config.dim, self.grid))
        for module in self.modules():
            if isinstance(module, Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.RMSNorm):
                module.reset_parameters()
            elif isinstance(module, Experts | Threshold):
                module.init_weights()
        for linear in (self.time_embedding.first, self.time_embedding.second):
            nn.init.normal_(linear.weight, std=0.02)
        if self.label_embedding is not None:
            nn.init.normal_(self.label_embedding.table.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, AdaLN):
                nn.init.zeros_(module.linear.weight)
        nn.init.zeros_(self.final.linear.weight)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], t: Float[Tensor, " batch"], cond: Conditioning
    ) -> BackboneOutput:
        """Predict from noisy input `x` at times `t` in [0, 1], where 0 is data and 1 is noise."""
        tokens = self.patch_embedding(self.patchify(x)) + self.positions
        condition = self.time_embedding(t)
        if self.label_embedding is not None and cond.label is not None:
            condition = condition + self.label_embedding(cond.label)
        routers = []
        for block in self.blocks:
            if self.activation_checkpointing and self.training:
                tokens, routing = checkpoint(block, tokens, condition, use_reentrant=False)
            else:
                tokens, routing = block(tokens, condition)
            if routing is not None:
                routers.append(routing)
        return BackboneOutput(self.unpatchify(self.final(tokens, condition)), tuple(routers))

    def patchify(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch tokens patch_dim"]:
        """Cut into patches in row-major order; a patch is flattened as (row, column, channel)."""
        batch, channels = x.shape[:2]
        p, grid = self.config.patch_size, self.grid
        x = x.reshape(batch, channels, grid, p, grid, p)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, grid * grid, p * p * channels)

    def unpatchify(
        self, patches: Float[Tensor, "batch tokens patch_dim"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The inverse of `patchify`, for any number of channels."""
        batch = patches.shape[0]
        p, grid = self.config.patch_size, self.grid
        x = patches.reshape(batch, grid, grid, p, p, -1)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, grid * p, grid * p)
