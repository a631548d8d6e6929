"""PixArt-alpha and EC-DiT: a text-conditional transformer over patches that reads the text by cross-attention.

Reference: PixArt-alpha (arXiv 2310.00426), section 2.3; EC-DiT (arXiv 2410.02098), sections 2.2, 2.3 and 3.1.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.models.backbone import (
    BACKBONES,
    MAX_DIM,
    Backbone,
    BackboneConfig,
    BackboneLayer,
    Modulation,
    feed_forward_maker,
    routed,
)
from leandit.models.masking import MaskDecoder, MaskingConfig, take_tokens
from leandit.models.records import BackboneOutput, Conditioning, EncodedText, LayerOutput
from leandit.moe import MoELayer
from leandit.nn import (
    AdaLN,
    CrossAttention,
    FeedForward,
    FinalLayer,
    Layers,
    Linear,
    Makers,
    Parts,
    SelfAttention,
    TimestepEmbedding,
)
from leandit.nn.text_embedding import TextEmbedding
from leandit.ops import gated_residual, norm_modulate


@BACKBONES.register
class PixArtConfig(BackboneConfig):
    """A PixArt-alpha or an EC-DiT; the default is a small PixArt-alpha.

    EC-DiT has adaln="per_layer" with adaln_vectors=3, heads = dim / 64, kv_heads below that in self-attention and
    cross_kv_heads = heads, project_text=false, time_dim=null, router_norm=false, masking={}, and experts:
    MoEConfig(strategy="expert_choice", gate="softmax", k=2, hidden_split=1, every=2, router="linear",
    router_input="plain", per_layer_regularisation=false, group_tokens=1024). It trains with train.mask_ratio=0.5. The
    paper prints the keys and values of cross-attention (eq. 2) and the router's input (eqs. 4 and 5). The form of AdaLN
    and the width of the text follow from its totals, which these settings meet within 1 %. The named models have them.
    """

    conditions_on_text: ClassVar[bool] = True

    type: Literal["pixart"] = "pixart"
    adaln: Literal["single", "per_layer"] = "single"
    """"single": one map of the time gives six vectors for all layers, and each layer adds a learned table
    (PixArt-alpha). "per_layer": each layer maps the time to vectors of its own (EC-DiT), see adaln_vectors.
    """
    adaln_vectors: Literal[3, 4, 6] = 4
    """Modulation vectors of a layer with adaln=per_layer. 3: shift, scale and gate of self-attention; the feed-forward
    gets the norm without modulation, so that time reaches it through the tokens alone (EC-DiT, eq. 4 and its totals).
    4: shift and scale of both, without gates. 6: shift, scale and gate of both (DiT).
    """
    kv_heads: int | None = Field(None, ge=1, le=MAX_DIM)
    """Number of key and value heads in self-attention. null is the number of heads."""
    cross_kv_heads: int | None = Field(None, ge=1, le=MAX_DIM)
    """Number of key and value heads in cross-attention. null is that of self-attention; the number of heads is EC-DiT's
    eq. 2, keys and values of the full width.
    """
    project_text: bool = True
    """Map the text features to dim by a two-layer network before the first layer (PixArt-alpha)."""
    time_dim: int | None = Field(256, ge=2, le=MAX_DIM, multiple_of=2)
    """Number of sinusoids in the time embedding, even. null is dim (EC-DiT)."""
    router_norm: bool = True
    """Whether a router with moe.router_input=plain or plain+time sees the norm of the tokens. false: it sees the tokens
    as they are after cross-attention, x' in EC-DiT's eqs. 4 and 5. The experts get the norm in any case.
    """
    masking: MaskingConfig | None = None
    """A light decoder after the layers, which lets training hide tokens (MaskDiT). null has none; train.mask_ratio must
    then be 0.
    """

    @model_validator(mode="after")
    def _check_form(self) -> Any:
        for name in ("kv_heads", "cross_kv_heads"):
            count = getattr(self, name)
            if count is not None and self.heads % count:
                raise ValueError(f"heads = {self.heads} is not divisible by {name} = {count}")
        if self.adaln == "single" and self.adaln_vectors != 4:
            raise ValueError(
                f"adaln_vectors = {self.adaln_vectors} is for adaln=per_layer; adaln=single always has 6: leave it out"
            )
        if not self.router_norm and self.moe is not None and self.moe.router_input == "modulated":
            raise ValueError(
                "router_norm = false is for routers that see tokens without modulation: set moe.router_input=plain or "
                "plain+time, or router_norm=true"
            )
        return self

    def build(self) -> PixArt:
        return PixArt(self)


# Branches without a gate, by the number of modulation vectors. A gate and an output of zero together never learn.
_UNGATED: dict[int, tuple[type[nn.Module], ...]] = {
    3: (CrossAttention, FeedForward, MoELayer),
    4: (CrossAttention, FeedForward, MoELayer, SelfAttention),
    6: (CrossAttention,),
}


class PixArt(Backbone):
    """Self-attention, cross-attention to the text, and a feed-forward or experts in each layer.

    Time modulates self-attention and feed-forward; text enters through cross-attention alone, and
    `Conditioning.pooled` is not read. With `masking` the last layer maps to the decoder's width, and the decoder to
    patches.
    """

    config: PixArtConfig

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__(config)
        assert config.text_dim is not None
        self.patch_embedding = Linear(self.patch_dim, config.dim)
        frequencies = config.timestep_freq_shift, config.time_scale, config.time_dim or config.dim
        self.time_embedding = TimestepEmbedding(config.dim, *frequencies)
        self.text_projection = TextEmbedding(config.text_dim, config.dim) if config.project_text else None
        self.text_width = config.dim if config.project_text else config.text_dim
        makers = [self._makers(index) for index in range(config.depth)]
        single = config.adaln == "single"
        # A single map is by definition the one that the layers share.
        sharing = "adaln" if single and config.sharing == "none" else config.sharing
        self.blocks = Layers(makers, sharing, partial(PixArtLayer, config))
        final = TableFinalLayer if single else FinalLayer
        masking = config.masking
        self.final = final(config.dim, masking.decoder_dim if masking else self.out_dim, config.norm_eps)
        self.decoder = MaskDecoder(masking, config, self.out_dim) if masking else None
        self._finish_init()

    def _makers(self, index: int) -> Makers:
        c = self.config
        attend = (c.heads, c.qk_norm, c.norm_eps, c.attention_impl)
        cross_kv_heads = c.cross_kv_heads or c.kv_heads
        single = c.adaln == "single"
        # The table is a layer's own at every level of sharing: it is what tells the layers apart.
        table: Makers = {"table": lambda: ModulationTable(c.dim, 6)} if single else {}
        return {
            "adaln": lambda: AdaLN(c.dim, 6 if single else c.adaln_vectors),
            **table,
            "attention": lambda: SelfAttention(c.dim, *attend, c.kv_heads),
            "cross_attention": lambda: CrossAttention(c.dim, self.text_width, *attend, cross_kv_heads),
            **feed_forward_maker(c, index, self.patch_dim),
        }

    def init_weights(self) -> None:
        """As in DiT, and what no gate of zero holds back starts with zero outputs: a fresh layer changes nothing.

        Which branches these are depends on the gates that AdaLN has: see `_UNGATED`.
        """
        super().init_weights()
        for linear in (self.time_embedding.first, self.time_embedding.second):
            nn.init.normal_(linear.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, ModulationTable):
                nn.init.zeros_(module.table)
        ungated = _UNGATED[6 if self.config.adaln == "single" else self.config.adaln_vectors]
        for module in self.blocks.modules():
            if isinstance(module, ungated):
                nn.init.zeros_(_output_weight(module))
        if self.decoder is None:
            nn.init.zeros_(self.final.linear.weight)
        else:
            self.decoder.init_weights()

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        t: Float[Tensor, " batch"],
        cond: Conditioning,
        visible: Int[Tensor, "batch kept"] | None = None,
    ) -> BackboneOutput:
        """Predict from noisy input; raise LeanDiTError without text of the width that the model was built for.

        `visible` are the tokens of each picture that the layers see, in rising order; the decoder, without which it
        raises LeanDiTError, returns all of them.
        """
        encoded = cond.encoded or EncodedText(*self._text(cond))
        grid = self.grid_of(x)
        tokens = self.patch_embedding(self.patchify(x)) + self.positions(grid)
        if visible is not None:
            if self.decoder is None:
                raise LeanDiTError("tokens can be hidden only from a model with a decoder: set model.masking")
            tokens = take_tokens(tokens, visible)
        condition = self.time_embedding(t)
        modulation, router_time = self._modulation(condition), self._router_time(condition)
        outputs: list[LayerOutput] = []
        for index, layer in enumerate(self.blocks):
            keys_values = encoded.keys_values[index] if encoded.keys_values else None
            text = (encoded.tokens, encoded.mask, keys_values)
            outputs.append(layer(self.blocks.shared, tokens, modulation, *text, router_time))
            tokens = outputs[-1].image
        patches = self.final(tokens, condition)
        if self.decoder is not None:
            patches = self.decoder(patches, condition, visible, grid)
        return BackboneOutput(self.unpatchify(patches, grid), routed(outputs), visible)

    def encode_text(self, cond: Conditioning) -> Conditioning:
        """Project the text and compute its keys and values for every layer; raise LeanDiTError as `forward` does.

        Training computes them in the layers, which activation checkpointing then need not keep.
        """
        text, mask = self._text(cond)
        layers = (layer for layer in self.blocks if isinstance(layer, PixArtLayer))
        keys_values = tuple(layer.keys_values(self.blocks.shared, text) for layer in layers)
        return replace(cond, encoded=EncodedText(text, mask, keys_values=keys_values))

    def _text(
        self, cond: Conditioning
    ) -> tuple[Float[Tensor, "batch padded_tokens width"], Bool[Tensor, "batch padded_tokens"] | None]:
        if cond.text is None:
            raise LeanDiTError("this model is conditioned on text, and the condition has none")
        if cond.text.shape[-1] != self.config.text_dim:
            raise LeanDiTError(
                f"text features are {cond.text.shape[-1]} wide, the model was built for {self.config.text_dim}: "
                "use the text encoder that it was trained with"
            )
        if self.text_projection is None:
            return cond.text, cond.text_mask
        return self.text_projection(cond.text, cond.text_mask)


class PixArtLayer(BackboneLayer):
    """x + attention(modulated x), x + cross_attention(x), x + feed_forward(modulated x), in this order.

    In EC-DiT the second is x'. Its Algorithm 1 routes and computes x' as it is. With `router_norm=False` the router
    sees x'; experts and feed-forward get the norm of it, as the feed-forward of every DiT.
    """

    config: PixArtConfig

    def compute(
        self,
        shared: Parts,
        x: Float[Tensor, "batch tokens dim"],
        modulation: Modulation,
        text: Float[Tensor, "batch text_tokens width"],
        text_mask: Bool[Tensor, "batch text_tokens"] | None,
        keys_values: tuple[Tensor, Tensor] | None = None,
        time: Float[Tensor, "batch dim"] | None = None,
    ) -> LayerOutput:
        """Return the tokens after the layer; `keys_values` are those of the text, if they are there already."""
        parts = self.parts(shared)
        vectors = self.vectors(parts, modulation)
        if "table" in parts:
            vectors = parts["table"](vectors)
        shift1, scale1, *rest = vectors
        # Four vectors have no gates; three have those of self-attention alone.
        gate1, shift2, scale2, gate2 = (None, *rest, None) if len(rest) == 2 else (*rest, None, None, None)[:4]
        x = _joined(x, parts["attention"](self.modulate(x, shift1, scale1)), gate1)
        x = x + parts["cross_attention"](x, text, text_mask, keys_values)
        plain = None if self.config.router_norm else x
        y, routing = self.feed_forward_or_experts(parts, x, shift2, scale2, time, plain)
        return LayerOutput(_joined(x, y, gate2), routing)

    def keys_values(self, shared: Parts, text: Float[Tensor, "batch text_tokens width"]) -> tuple[Tensor, Tensor]:
        """Return the keys and values of the text for this layer."""
        attention = self.parts(shared)["cross_attention"]
        assert isinstance(attention, CrossAttention)
        return attention.keys_values(text)


class ModulationTable(nn.Module):
    """A learned offset, one row for each of a layer's modulation vectors; zero at the start.

    Reference: PixArt-alpha, section 2.3 (adaLN-single).
    """

    def __init__(self, dim: int, num_vectors: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(num_vectors, dim))

    def forward(self, vectors: tuple[Float[Tensor, "batch dim"], ...]) -> tuple[Float[Tensor, "batch dim"], ...]:
        return tuple(vector + row for vector, row in zip(vectors, self.table, strict=True))


class TableFinalLayer(nn.Module):
    """Norm, modulation by the time embedding itself plus a learned table, and the map from tokens to patches.

    Reference: PixArt-alpha's public code.
    """

    def __init__(self, dim: int, patch_dim: int, norm_eps: float) -> None:
        super().__init__()
        self.norm_eps = norm_eps
        self.table = ModulationTable(dim, 2)
        self.linear = Linear(dim, patch_dim)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], condition: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch tokens patch_dim"]:
        shift, scale = self.table((condition, condition))
        return self.linear(norm_modulate(x, shift, scale, self.norm_eps))


def _joined(
    x: Float[Tensor, "batch tokens dim"],
    y: Float[Tensor, "batch tokens dim"],
    gate: Float[Tensor, "batch dim"] | None,
) -> Float[Tensor, "batch tokens dim"]:
    return x + y if gate is None else gated_residual(x, gate, y)


def _output_weight(module: nn.Module) -> Tensor:
    """The weight from which a branch writes back to the residual stream."""
    if isinstance(module, SelfAttention | CrossAttention):
        return module.proj.weight
    if isinstance(module, FeedForward):
        return module.down.weight
    assert isinstance(module, MoELayer)
    return module.experts.w2
