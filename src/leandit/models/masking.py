"""Token masking in training, as in MaskDiT: layers get some tokens of a picture, and a small decoder adds the rest."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from leandit.config import Config
from leandit.grid import Grid
from leandit.models.backbone import MAX_DIM, BackboneConfig, BackboneLayer, hidden_width
from leandit.models.records import LayerOutput
from leandit.nn import AdaLN, FeedForward, FinalLayer, Layers, Makers, Parts, SelfAttention, sincos_positions
from leandit.ops import gated_residual


class MaskingConfig(Config):
    """The decoder for hidden tokens; `train.mask_ratio` is the share of hidden tokens.

    The sizes are those of MaskDiT, which are the same for encoders of every size. EC-DiT masks like MaskDiT, and does
    not describe its decoder.
    """

    decoder_depth: int = Field(8, ge=1, le=64)
    """Number of layers of the decoder."""
    decoder_dim: int = Field(512, ge=4, le=MAX_DIM)
    """Width of the decoder."""
    decoder_heads: int = Field(16, ge=1, le=MAX_DIM)
    """Number of attention heads of the decoder."""

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.decoder_dim % self.decoder_heads:
            raise ValueError(
                f"decoder_dim = {self.decoder_dim} is not divisible by decoder_heads = {self.decoder_heads}"
            )
        if self.decoder_dim % 4:
            raise ValueError(f"decoder_dim = {self.decoder_dim} is not divisible by 4, which sin-cos positions need")
        return self


class MaskDecoder(nn.Module):
    """Visible tokens and mask tokens of decoder_dim -> + positions -> DiT blocks -> patches of all tokens.

    The blocks are dense AdaLN-Zero blocks of D = decoder_dim, modulated by the encoder's condition of width d: 6 D d +
    12 D² weights each. Inference also uses the decoder, without hidden tokens. Text reaches it only through the
    encoder's tokens.

    Reference: MaskDiT (arXiv 2306.09305), section on the asymmetric encoder-decoder.
    """

    def __init__(self, masking: MaskingConfig, config: BackboneConfig, out_dim: int) -> None:
        super().__init__()
        self.config = config
        dim = masking.decoder_dim
        self.mask_token = nn.Parameter(torch.empty(dim))
        makers = _makers(masking, config)
        self.blocks = Layers([makers] * masking.decoder_depth, "none", partial(DecoderLayer, config))
        self.final = FinalLayer(dim, out_dim, config.norm_eps, condition_dim=config.dim)

    def init_weights(self) -> None:
        """Set what the backbone does not set: N(0, 0.02) mask token and zero output."""
        nn.init.normal_(self.mask_token, std=0.02)
        nn.init.zeros_(self.final.linear.weight)

    def forward(
        self,
        x: Float[Tensor, "batch kept decoder_dim"],
        condition: Float[Tensor, "batch dim"],
        visible: Int[Tensor, "batch kept"] | None,
        grid: Grid,
    ) -> Float[Tensor, "batch tokens patch_dim"]:
        """Return patches of all tokens of the grid. Without `visible`, `x` contains all tokens."""
        if visible is not None:
            x = self._fill_in(x, visible, grid.tokens)
        x = x + self.positions(grid)
        for layer in self.blocks:
            x = layer(self.blocks.shared, x, condition).image
        return self.final(x, condition)

    def positions(self, grid: Grid) -> Float[Tensor, "tokens decoder_dim"]:
        """Return the sin-cos positions of a grid of patches in the decoder's width."""
        token = self.mask_token
        return sincos_positions(len(token), grid, self.config.span, device=token.device, dtype=token.dtype)

    def _fill_in(
        self, x: Float[Tensor, "batch kept decoder_dim"], visible: Int[Tensor, "batch kept"], tokens: int
    ) -> Float[Tensor, "batch {tokens} decoder_dim"]:
        hidden = self.mask_token.to(x.dtype).expand(x.shape[0], tokens, -1)
        return hidden.scatter(1, visible[..., None].expand_as(x), x)


class DecoderLayer(BackboneLayer):
    """x + gate attention(modulated x), then x + gate feed_forward(modulated x)."""

    def compute(
        self, shared: Parts, x: Float[Tensor, "batch tokens decoder_dim"], condition: Float[Tensor, "batch dim"]
    ) -> LayerOutput:
        """Return the tokens after the layer."""
        parts = self.parts(shared)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts["adaln"](condition)
        x = gated_residual(x, gate1, parts["attention"](self.modulate(x, shift1, scale1)))
        modulated = self.modulate(x, shift2, scale2, self.config.feed_forward_norm_eps)
        return LayerOutput(gated_residual(x, gate2, parts["feed_forward"](modulated)))


def take_tokens(
    tokens: Float[Tensor, "batch tokens width"], index: Int[Tensor, "batch kept"]
) -> Float[Tensor, "batch kept width"]:
    """Return the tokens of each picture that `index` names."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def _makers(masking: MaskingConfig, config: BackboneConfig) -> Makers:
    """Return the makers of a block, with the backbone's ratio of widths, query normalisation and attention."""
    dim = masking.decoder_dim
    return {
        "adaln": lambda: AdaLN(config.dim, 6, dim),
        "attention": lambda: SelfAttention(
            dim, masking.decoder_heads, config.qk_norm, config.norm_eps, config.attention_impl
        ),
        "feed_forward": lambda: FeedForward(dim, hidden_width(dim, config.mlp_ratio)),
    }
