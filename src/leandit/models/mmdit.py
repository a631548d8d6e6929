"""MMDiT: a text stream and an image stream, each with its own weights, that meet in joint attention.

Reference: SD3 (arXiv 2403.03206); as the baseline of DiT-Air (arXiv 2503.10618), Tables 1 and 2.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Bool, Float
from pydantic import Field
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
from leandit.nn import AdaLN, FeedForward, Makers, Parts
from leandit.nn.joint_attention import JointAttention
from leandit.ops import gated_residual


@BACKBONES.register
class MMDiTConfig(BackboneConfig):
    """An MMDiT; the default is the size S of DiT-Air's comparison.

    `sharing="adaln"` is the shared-AdaLN form of DiT-Air's Table 2. Experts replace only the feed-forward of the image
    stream: routers with per-layer regularisation predict patches, and padded text must not win a race.
    """

    conditions_on_text: ClassVar[bool] = True

    type: Literal["mmdit"] = "mmdit"
    dim: int = Field(768, ge=4, le=MAX_DIM)
    heads: int = Field(12, ge=1, le=MAX_DIM)
    qk_norm: bool = True
    """Normalise queries and keys. SD3 needs this for stability in large models; DiT-Air's baseline also has it."""

    def build(self) -> MMDiT:
        return MMDiT(self)


class MMDiTLayer(BackboneLayer):
    """Joint attention, then each stream's feed-forward. AdaLN gives six vectors to the text, then six to the image."""

    def compute(
        self,
        shared: Parts,
        text: Float[Tensor, "batch text_tokens dim"],
        image: Float[Tensor, "batch tokens dim"],
        modulation: Modulation,
        mask: Bool[Tensor, "batch all_tokens"] | None,
        last: bool,
        time: Float[Tensor, "batch dim"] | None = None,
    ) -> LayerOutput:
        """Return both streams after the layer. The last layer does not change the text, because nothing reads it."""
        parts = self.parts(shared)
        vectors = self.vectors(parts, modulation)
        (shift1, scale1, gate1), (shift2, scale2, gate2) = vectors[:3], vectors[3:6]
        (image_shift1, image_scale1, image_gate1), (image_shift2, image_scale2, image_gate2) = vectors[6:9], vectors[9:]
        y_text, y_image = parts["attention"](
            self.modulate(text, shift1, scale1),
            self.modulate(image, image_shift1, image_scale1),
            mask,
            image_only=last,
        )
        image = gated_residual(image, image_gate1, y_image)
        y, routing = self.feed_forward_or_experts(parts, image, image_shift2, image_scale2, time)
        image = gated_residual(image, image_gate2, y)
        if not last:
            text = gated_residual(text, gate1, y_text)
            y_text = parts["text_feed_forward"](self.modulate(text, shift2, scale2, self.config.feed_forward_norm_eps))
            text = gated_residual(text, gate2, y_text)
        return LayerOutput(image, routing, text)


class MMDiT(JointBackbone):
    """Condition on time and pooled text through AdaLN-Zero, and on text tokens through joint attention.

    Each block has 36 d² weights, as in DiT-Air's Table 1: 8 d² in attention, 16 d² in feed-forwards, 12 d² in AdaLN.
    This count includes weights that the last block does not use, because nothing reads its text: `text_feed_forward`,
    and the queries and the output of `attention.text`. They get no gradient unless layers share them (SD3 omits them).
    """

    name = "MMDiT"
    layer_type = MMDiTLayer

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__(config)
        self._finish_init()

    def _makers(self, index: int) -> Makers:
        c = self.config
        return {
            "adaln": lambda: AdaLN(c.dim, 12),
            "attention": lambda: JointAttention(c.dim, c.heads, c.qk_norm, c.norm_eps, c.attention_impl),
            "text_feed_forward": lambda: FeedForward(c.dim, c.hidden),
            **feed_forward_maker(c, index, self.patch_dim),
        }

    def _place(self, image: Float[Tensor, "batch tokens dim"], grid: Grid) -> Float[Tensor, "batch tokens dim"]:
        return image + self.positions(grid)
