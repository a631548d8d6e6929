"""DiT-Air and DiT-Air-Lite: one stream over text and image with one set of weights, and one AdaLN for all layers.

Reference: DiT-Air (arXiv 2503.10618), Figure 3 and Table 1.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from leandit.grid import Grid
from leandit.models.backbone import (
    BACKBONES,
    MAX_DIM,
    BackboneConfig,
    BackboneLayer,
    Modulation,
    feed_forward_maker,
)
from leandit.models.joint import JointBackbone
from leandit.models.records import LayerOutput
from leandit.nn import AdaLN, FeedForward, Makers, Parts, Sharing
from leandit.nn.joint_attention import SingleStreamAttention
from leandit.nn.rope import rope_2d
from leandit.ops import gated_residual

# N layers of width 64 N with N heads: the sizes in the paper's comparison of DiT-Air, MMDiT and PixArt-alpha.
SIZES: dict[str, dict[str, int]] = {
    name: {"depth": layers, "dim": 64 * layers, "heads": layers}
    for name, layers in {"S": 12, "B": 18, "L": 24, "XL": 30, "XXL": 38}.items()
}


@BACKBONES.register
class DiTAirConfig(BackboneConfig):
    """A DiT-Air; the default is size S.

    `sharing="attention"` and `"block"` are the two forms of DiT-Air-Lite; `"none"` gives every layer its own AdaLN,
    which the paper does not have. Experts compute only image tokens: routers with per-layer regularisation predict
    patches, and padded text must not win a race. In a layer with experts, text has a dense feed-forward.
    """

    conditions_on_text: ClassVar[bool] = True

    type: Literal["dit_air"] = "dit_air"
    dim: int = Field(768, ge=4, le=MAX_DIM)
    heads: int = Field(12, ge=1, le=MAX_DIM)
    qk_norm: bool = True
    sharing: Sharing = "adaln"
    rope_base: float = Field(10_000.0, gt=1, le=1e12)
    """Base of the rotary frequencies. The paper does not state it, nor whether text tokens are rotated; here they are
    not.
    """
    norm_after_experts: bool = False
    """Also apply the norm that follows a feed-forward to the output of experts. The norm removes the scale of the
    scores: a token with one expert gets the same output for every score, so the router gets no gradient from it.
    """

    @model_validator(mode="after")
    def _check_rope(self) -> Any:
        if self.position_grid is not None:
            raise ValueError("position_grid is for sin-cos positions; RoPE extends to any grid, so leave it null")
        if self.dim // self.heads % 4:
            raise ValueError(
                f"head width {self.dim // self.heads} (dim / heads) is not divisible by 4, which 2-D RoPE needs"
            )
        return self

    def build(self) -> DiTAir:
        return DiTAir(self)


class DiTAirLayer(BackboneLayer):
    """Attention, then feed-forward, each as x + gate norm(f(norm(x) (1 + scale) + shift)), with the same weights for
    text and image.

    AdaLN gives six vectors to the text, then six to the image. By default no norm follows experts.
    """

    config: DiTAirConfig

    def compute(
        self,
        shared: Parts,
        text: Float[Tensor, "batch text_tokens dim"],
        image: Float[Tensor, "batch tokens dim"],
        modulation: Modulation,
        mask: Bool[Tensor, "batch all_tokens"] | None,
        rotation: Float[Tensor, "2 tokens half_head_dim"],
        last: bool,
        time: Float[Tensor, "batch dim"] | None = None,
    ) -> LayerOutput:
        """Return text and image after the layer. The last layer does not change the text, because nothing reads it."""
        parts = self.parts(shared)
        vectors = self.vectors(parts, modulation)
        (shift1, scale1, gate1), (shift2, scale2, gate2) = vectors[:3], vectors[3:6]
        (image_shift1, image_scale1, image_gate1), (image_shift2, image_scale2, image_gate2) = vectors[6:9], vectors[9:]
        y = parts["attention"](
            torch.cat([self.modulate(text, shift1, scale1), self.modulate(image, image_shift1, image_scale1)], 1),
            rotation,
            mask,
            image_only=last,
        )
        y_text, y_image = self.norm(y).tensor_split([-image.shape[1]], dim=1)
        image = gated_residual(image, image_gate1, y_image)
        y, routing = self.feed_forward_or_experts(parts, image, image_shift2, image_scale2, time)
        if routing is None or self.config.norm_after_experts:
            y = self.norm(y)
        image = gated_residual(image, image_gate2, y)
        if not last:
            text = gated_residual(text, gate1, y_text)
            y_text = parts["feed_forward"](self.modulate(text, shift2, scale2, self.config.feed_forward_norm_eps))
            text = gated_residual(text, gate2, self.norm(y_text))
        return LayerOutput(image, routing, text)


class DiTAir(JointBackbone):
    """Attention and feed-forward over [text ; image] with the same weights; separate modulation of text and image.

    AdaLN has 12 d² weights for all layers. A block has 12 d²: 4 d² in attention and 8 d² in the feed-forward.
    """

    name = "DiT-Air"
    layer_type = DiTAirLayer
    config: DiTAirConfig

    def __init__(self, config: DiTAirConfig) -> None:
        super().__init__(config)
        self._finish_init()

    def _makers(self, index: int) -> Makers:
        c = self.config
        makers = {
            "adaln": lambda: AdaLN(c.dim, 12),
            "attention": lambda: SingleStreamAttention(c.dim, c.heads, c.qk_norm, c.norm_eps, c.attention_impl),
            **feed_forward_maker(c, index, self.patch_dim),
        }
        if "moe" in makers and index < c.depth - 1:  # nothing reads the text after the last layer
            makers["feed_forward"] = lambda: FeedForward(c.dim, c.hidden)
        return makers

    def rotation(self, grid: Grid) -> Float[Tensor, "2 tokens half_head_dim"]:
        """Return the angles of the patches of a grid."""
        c, weight = self.config, self.patch_embedding.weight
        return rope_2d(c.dim // c.heads, grid, c.rope_base, device=weight.device, dtype=weight.dtype)

    def _layer_state(self, grid: Grid) -> tuple[Tensor, ...]:
        return (self.rotation(grid),)
