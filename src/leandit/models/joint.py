"""What MMDiT and DiT-Air have in common: text and image tokens run side by side through layers that both see."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.models.backbone import Backbone, BackboneConfig, routed
from leandit.models.records import BackboneOutput, Conditioning, EncodedText
from leandit.moe import RouterOutput
from leandit.nn import FinalLayer, Linear, TimestepEmbedding
from leandit.nn.sharing import Makers, Parts
from leandit.nn.text_embedding import PooledEmbedding, TextEmbedding, joint_mask


class JointBackbone(Backbone):
    """Embeddings of patches, time, pooled text and text tokens, the loop over the layers, and the output.

    A subclass says what a layer is made of (`_makers`) and does (`_block`), places the patches, registers what it does
    that with, and calls `_finish_init` last.

    Reference: SD3 (arXiv 2403.03206), Figure 2; DiT-Air (arXiv 2503.10618), Figure 3.
    """

    # The papers' name of it, for messages.
    name: ClassVar[str]

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        assert config.text_dim is not None  # the base has checked both
        assert config.pooled_dim is not None
        self.patch_embedding = Linear(self.patch_dim, config.dim)
        self.time_embedding = TimestepEmbedding(config.dim, config.timestep_freq_shift)
        self.pooled_embedding = PooledEmbedding(config.pooled_dim, config.dim)
        self.text_embedding = TextEmbedding(config.text_dim, config.dim)
        self.blocks = self._build_layers(self._makers)
        self.final = FinalLayer(config.dim, self.out_dim, config.norm_eps)

    @abstractmethod
    def _makers(self, index: int) -> Makers:
        """Return the makers of a layer's parts."""

    @abstractmethod
    def _block(
        self,
        parts: Parts,
        text: Float[Tensor, "batch text_tokens dim"],
        image: Float[Tensor, "batch tokens dim"],
        vectors: tuple[Float[Tensor, "batch dim"], ...],
        mask: Bool[Tensor, "batch all_tokens"] | None,
        last: bool,
    ) -> tuple[Float[Tensor, "batch text_tokens dim"], Float[Tensor, "batch tokens dim"], RouterOutput | None]:
        """Apply a layer; `vectors` are six for the text, then six for the image. The last one may leave the text."""

    def init_weights(self) -> None:
        """Xavier-uniform matrices, N(0, 0.02) MLPs of time and pooled text, zero AdaLN and output."""
        super().init_weights()
        for embedding in (self.time_embedding, self.pooled_embedding):
            nn.init.normal_(embedding.first.weight, std=0.02)
            nn.init.normal_(embedding.second.weight, std=0.02)
        nn.init.zeros_(self.final.linear.weight)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], t: Float[Tensor, " batch"], cond: Conditioning
    ) -> BackboneOutput:
        """Predict from noisy input; raise LeanDiTError without text of the widths that the model was built for."""
        encoded = cond.encoded or self.encode_text(cond).encoded
        assert encoded is not None
        assert encoded.pooled is not None
        image = self._place(self.patch_embedding(self.patchify(x)))
        text, mask = encoded.tokens, joint_mask(encoded.mask, image.shape[1])
        condition = self.time_embedding(t) + encoded.pooled
        outputs = []
        for index, (parts, vectors) in enumerate(self._modulated_layers(condition)):
            last = index == len(self.blocks) - 1
            text, image, routing = self._run(self._block, parts, text, image, vectors, mask, last)
            outputs.append(routing)
        return BackboneOutput(self.unpatchify(self.final(image, condition)), routed(outputs))

    def encode_text(self, cond: Conditioning) -> Conditioning:
        """Embed tokens and pooled vector; raise LeanDiTError without text."""
        if cond.text is None or cond.pooled is None:
            raise LeanDiTError(f"{self.name} reads text, and the condition lacks it: give text and pooled")
        tokens, mask = self.text_embedding(cond.text, cond.text_mask)
        return replace(cond, encoded=EncodedText(tokens, mask, self.pooled_embedding(cond.pooled)))

    def _place(self, image: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Say where in the picture each patch is; by default attention does."""
        return image
