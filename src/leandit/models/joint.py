"""The common base of MMDiT and DiT-Air: every layer processes text and image tokens together."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.grid import Grid
from leandit.models.backbone import Backbone, BackboneConfig, BackboneLayer, routed
from leandit.models.records import BackboneOutput, Conditioning, EncodedText, LayerOutput
from leandit.nn import FinalLayer, Layers, Linear, Makers, TimestepEmbedding
from leandit.nn.text_embedding import PooledEmbedding, TextEmbedding, joint_mask


class JointBackbone(Backbone):
    """Embeddings of patches, time, pooled text and text tokens, the loop over the layers, and the output.

    A subclass defines the parts of a layer (`_makers`), the class of its layers (`layer_type`) and the positions of
    patches, and calls `_finish_init` last. The arguments of a layer are the text tokens, the image tokens, the
    modulation, the mask over both, the results of `_layer_state`, whether it is the last layer, and the time embedding
    if routers use it.

    Reference: SD3 (arXiv 2403.03206), Figure 2; DiT-Air (arXiv 2503.10618), Figure 3.
    """

    # The name in the paper, for messages.
    name: ClassVar[str]
    layer_type: ClassVar[type[BackboneLayer]]

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        assert config.text_dim is not None  # the base class has checked both
        assert config.pooled_dim is not None
        self.patch_embedding = Linear(self.patch_dim, config.dim)
        self.time_embedding = TimestepEmbedding(config.dim, config.timestep_freq_shift, config.time_scale)
        self.pooled_embedding = PooledEmbedding(config.pooled_dim, config.dim)
        self.text_embedding = TextEmbedding(config.text_dim, config.dim)
        makers = [self._makers(index) for index in range(config.depth)]
        self.blocks = Layers(makers, config.sharing, partial(self.layer_type, config))
        self.final = FinalLayer(config.dim, self.out_dim, config.norm_eps)

    @abstractmethod
    def _makers(self, index: int) -> Makers:
        """Return the functions that make a layer's parts."""

    def init_weights(self) -> None:
        """Set Xavier-uniform matrices, N(0, 0.02) MLPs of time and pooled text, zero AdaLN and output."""
        super().init_weights()
        for embedding in (self.time_embedding, self.pooled_embedding):
            nn.init.normal_(embedding.first.weight, std=0.02)
            nn.init.normal_(embedding.second.weight, std=0.02)
        nn.init.zeros_(self.final.linear.weight)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], t: Float[Tensor, " batch"], cond: Conditioning
    ) -> BackboneOutput:
        """Predict from noisy input. Raises LeanDiTError if text is missing or its widths are not the model's."""
        encoded = cond.encoded or self.encode_text(cond).encoded
        assert encoded is not None
        assert encoded.pooled is not None
        grid = self.grid_of(x)
        image = self._place(self.patch_embedding(self.patchify(x)), grid)
        text, mask = encoded.tokens, joint_mask(encoded.mask, image.shape[1])
        time = self.time_embedding(t)
        condition = time + encoded.pooled
        modulation, more = self._modulation(condition), self._layer_state(grid)
        router_time = self._router_time(time)
        outputs: list[LayerOutput] = []
        for index, layer in enumerate(self.blocks):
            last = index == self.config.depth - 1
            outputs.append(layer(self.blocks.shared, text, image, modulation, mask, *more, last, router_time))
            image = outputs[-1].image
            text = text if outputs[-1].text is None else outputs[-1].text
        return BackboneOutput(self.unpatchify(self.final(image, condition), grid), routed(outputs))

    def encode_text(self, cond: Conditioning) -> Conditioning:
        """Embed tokens and pooled vector. Raises LeanDiTError if text is missing."""
        if cond.text is None or cond.pooled is None:
            raise LeanDiTError(f"{self.name} reads text, but the condition has none: give text and pooled")
        tokens, mask = self.text_embedding(cond.text, cond.text_mask)
        return replace(cond, encoded=EncodedText(tokens, mask, self.pooled_embedding(cond.pooled)))

    def _place(self, image: Float[Tensor, "batch tokens dim"], grid: Grid) -> Float[Tensor, "batch tokens dim"]:
        """Add positions to the patches. By default attention encodes positions instead."""
        return image

    def _layer_state(self, grid: Grid) -> tuple[Tensor, ...]:
        """Return further arguments of every layer."""
        return ()
