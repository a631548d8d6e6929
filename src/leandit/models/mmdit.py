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

    `sharing="adaln"` is the shared-AdaLN form of DiT-Air's Table 2. Experts replace the image stream's feed-forward
    only: routers regularised per layer predict patches, and padded text must not win a race. The text stream stays
    dense.
    """

    conditions_on_text: ClassVar[bool] = True

    type: Literal["mmdit"] = "mmdit"
    dim: int = Field(768, ge=4, le=MAX_DIM)
    heads: int = Field(12, ge=1, le=MAX_DIM)
    qk_norm: bool = True
    """SD3 needs it for stability at size; DiT-Air's baseline has it too."""

    def build(self) -> MMDiT:
        return MMDiT(self)


class MMDiTLayer(BackboneLayer):
    """Joint attention, then each stream's feed-forward; AdaLN gives six vectors to the text, then six to the image."""

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
        """Return both streams after the layer; the last one leaves the text as it is, since nothing reads it."""
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
            y_text = parts["text_feed_forward"](self.modulate(text, shift2, scale2))
            text = gated_residual(text, gate2, y_text)
        return LayerOutput(image, routing, text)


class MMDiT(JointBackbone):
    """Condition on time and pooled text through AdaLN-Zero, and on text tokens through joint attention.

    The blocks have 36 d² weights each, 8 d² of attention, 16 d² of feed-forward and 12 d² of AdaLN, as DiT-Air's
    Table 1 counts. That count includes what the last block would do with its text after attention. Nothing reads
    that text, so it goes no further, and the weights for it get no gradient unless layers share them (SD3 leaves
    them out). They are the last block's `text_feed_forward`, and of its `attention.text` what makes queries and output.
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
