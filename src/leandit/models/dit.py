"""DiT and Race-DiT: a class-conditional transformer over patches, dense or with experts in its blocks.

Reference: DiT (arXiv 2212.09748); Expert Race (arXiv 2503.16057), section on the architecture.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from leandit.models.backbone import (
    BACKBONES,
    Backbone,
    BackboneConfig,
    BackboneLayer,
    Modulation,
    feed_forward_maker,
    routed,
)
from leandit.models.records import BackboneOutput, Conditioning, LayerOutput
from leandit.nn import (
    AdaLN,
    FinalLayer,
    LabelEmbedding,
    Layers,
    Linear,
    Makers,
    Parts,
    SelfAttention,
    TimestepEmbedding,
)
from leandit.ops import gated_residual


@BACKBONES.register
class DiTConfig(BackboneConfig):
    """A DiT; with `moe` set, a Race-DiT or one of its baselines. The default is DiT-S/2."""

    type: Literal["dit"] = "dit"

    def build(self) -> DiT:
        return DiT(self)


class DiT(Backbone):
    """Patchify, add positions, apply AdaLN-Zero blocks conditioned on time and label, and map back to patches."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config)
        self.patch_embedding = Linear(self.patch_dim, config.dim)
        self.time_embedding = TimestepEmbedding(config.dim, config.timestep_freq_shift, config.time_scale)
        self.label_embedding = LabelEmbedding(config.num_classes, config.dim) if config.num_classes else None
        attention = (config.dim, config.heads, config.qk_norm, config.norm_eps, config.attention_impl)
        parts: Makers = {"adaln": lambda: AdaLN(config.dim, 6), "attention": lambda: SelfAttention(*attention)}
        makers = [{**parts, **feed_forward_maker(config, index, self.patch_dim)} for index in range(config.depth)]
        self.blocks = Layers(makers, config.sharing, partial(DiTLayer, config))
        self.final = FinalLayer(config.dim, self.out_dim, config.norm_eps)
        self._finish_init()

    def init_weights(self) -> None:
        """Set Xavier-uniform matrices, N(0, 0.02) embeddings and time MLP, zero AdaLN and output, as in DiT."""
        super().init_weights()
        for linear in (self.time_embedding.first, self.time_embedding.second):
            nn.init.normal_(linear.weight, std=0.02)
        if self.label_embedding is not None:
            nn.init.normal_(self.label_embedding.table.weight, std=0.02)
        nn.init.zeros_(self.final.linear.weight)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], t: Float[Tensor, " batch"], cond: Conditioning
    ) -> BackboneOutput:
        grid = self.grid_of(x)
        tokens = self.patch_embedding(self.patchify(x)) + self.positions(grid)
        condition = self.time_embedding(t)
        router_time = self._router_time(condition)
        if self.label_embedding is not None and cond.label is not None:
            condition = condition + self.label_embedding(cond.label)
        modulation = self._modulation(condition)
        outputs: list[LayerOutput] = []
        for layer in self.blocks:
            outputs.append(layer(self.blocks.shared, tokens, modulation, router_time))
            tokens = outputs[-1].image
        return BackboneOutput(self.unpatchify(self.final(tokens, condition), grid), routed(outputs))


class DiTLayer(BackboneLayer):
    """x + gate attention(modulated x), then x + gate feed_forward(modulated x). The feed-forward may be experts."""

    def compute(
        self,
        shared: Parts,
        x: Float[Tensor, "batch tokens dim"],
        modulation: Modulation,
        time: Float[Tensor, "batch dim"] | None = None,
    ) -> LayerOutput:
        """Return the tokens after the layer."""
        parts = self.parts(shared)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.vectors(parts, modulation)
        x = gated_residual(x, gate1, parts["attention"](self.modulate(x, shift1, scale1)))
        y, routing = self.feed_forward_or_experts(parts, x, shift2, scale2, time)
        return LayerOutput(gated_residual(x, gate2, y), routing)
