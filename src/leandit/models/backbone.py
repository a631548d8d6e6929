"""What all backbones have in common: geometry, embedding of patches and time, sharing, initialisation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.config import Config, Fact, Registry
from leandit.errors import LeanDiTError
from leandit.grid import Grid, Size
from leandit.models.records import BackboneOutput, Conditioning, LayerOutput
from leandit.moe import Experts, MoEConfig, MoELayer, RouterModule, RouterOutput, Threshold
from leandit.nn import AdaLN, FeedForward, Layer, Layers, Linear, Makers, Parts, Sharing, sincos_positions
from leandit.ops import norm_modulate
from leandit.ops.attention import AttentionImpl

# Far above any model, and small enough that a slip of the finger is an error at once, not a program that hangs.
MAX_DIM, MAX_DEPTH, MAX_CLASSES = 65_536, 256, 65_536


class BackboneConfig(Config):
    """The fields that every backbone has."""

    conditions_on_text: ClassVar[bool] = False
    """Whether the backbone reads text (Conditioning.text and .pooled) or labels."""

    type: str
    """The name of the backbone in configurations; every kind has its own."""
    dim: int = Field(384, ge=4, le=MAX_DIM)
    """Width of the tokens."""
    depth: int = Field(12, ge=1, le=MAX_DEPTH)
    """Number of layers."""
    heads: int = Field(6, ge=1, le=MAX_DIM)
    """Number of attention heads, a divisor of dim."""
    patch_size: int = Field(2, ge=1, le=4096)
    """Side of a patch. One patch is one token."""
    input_size: Size | None = None
    """Height and width that the model learns, or one number. null is data.image_size. It accepts other sizes, too."""
    channels: int | None = Field(None, ge=1, le=4096)
    """Channels of the input. null means data.channels."""
    num_classes: int | None = Field(None, ge=0, le=MAX_CLASSES)
    """Number of classes to condition on. 0 is an unconditional model; null means the number of classes of the data."""
    text_dim: int | None = Field(None, ge=1, le=8 * MAX_DIM)
    """Width of the text features. null means that of the text encoders."""
    pooled_dim: int | None = Field(None, ge=1, le=8 * MAX_DIM)
    """Width of the pooled text vector. null means that of the text encoders."""
    position_grid: Size | None = None
    """Patches along height and width, or one number, of the pictures with which positions were learned, if pictures are
    larger now: sin-cos positions keep that span and are closer together. null is the present grid. Not for RoPE."""
    mlp_ratio: float = Field(4.0, gt=0, le=64)
    """Hidden width of the dense feed-forward, in multiples of dim."""
    qk_norm: bool = False
    """Normalise queries and keys by their root mean square. DiT-Air and SD3 do this for stability."""
    learned_sigma: bool = False
    """Also predict a variance: twice the output channels. objective.learned_sigma must be the same."""
    timestep_freq_shift: float = Field(0.0, ge=0, lt=128)
    """Shift in the frequencies of the time embedding: 0 in DiT's code and checkpoints, 1 in those of diffusers."""
    time_scale: float = Field(1000.0, gt=0, le=1e6)
    """Factor of the time t in [0, 1] in its embedding: 1000 in DiT, PixArt and SD3; 1 in SiT, REPA and DiffMoE."""
    norm_eps: float = Field(1e-6, gt=0, le=1)
    """Added to the variance in norms."""
    feed_forward_norm_eps: float | None = Field(None, gt=0, le=1)
    """The same in norms before a feed-forward or experts; null is norm_eps. diffusers' DiT checkpoints have 1e-5."""
    sharing: Sharing = "none"
    """Weights that the layers share: none, the AdaLN modulation (adaln), also attention (attention), or all (block)."""
    attention_impl: Annotated[AttentionImpl, Fact.BACKEND] = "auto"
    """Implementation of attention. All give the same result up to rounding."""
    moe: MoEConfig | None = None
    """Experts instead of the dense feed-forward. null is a dense model."""

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.dim % self.heads:
            raise ValueError(f"dim = {self.dim} is not divisible by heads = {self.heads}")
        if self.dim % 4:
            raise ValueError(f"dim = {self.dim} is not divisible by 4, which sin-cos positions need")
        if not self.size.divisible(self.patch_size):
            raise ValueError(f"input_size = {self.size} is not divisible by patch_size = {self.patch_size}")
        if self.hidden < 1:
            raise ValueError(f"mlp_ratio = {self.mlp_ratio} leaves a dim of {self.dim} without a hidden unit")
        if self.moe is not None:
            self.moe.expert_hidden(self.hidden)
            if self.moe.every > self.depth:
                raise ValueError(f"moe.every = {self.moe.every} leaves no block of {self.depth} with experts")
        return self

    @property
    def hidden(self) -> int:
        """Hidden width of the dense feed-forward."""
        return hidden_width(self.dim, self.mlp_ratio)

    @property
    def size(self) -> Grid:
        """Height and width of the input; 0 until the data determine them."""
        return Grid.of(self.input_size or 0)

    @property
    def grid(self) -> Grid:
        """Patches along height and width; 0 until the data determine the size."""
        return self.size.patches(self.patch_size)

    @property
    def span(self) -> Grid:
        """The grid whose span sin-cos positions divide, for every grid of an input."""
        return Grid.of(self.position_grid) if self.position_grid else self.grid

    def tokens(self, shape: tuple[int, int, int]) -> int:
        """Return the number of patches of a sample of channels, height and width."""
        return Grid(*shape[1:]).patches(self.patch_size).tokens

    def complete(self, **given: int | tuple[int, int] | list[int] | None) -> Any:
        """Return a copy with the values that come from the data and the text encoder."""
        return self.replace(**{key: value for key, value in given.items() if getattr(self, key) is None})

    def build(self) -> Backbone:
        """Return the model with initialised weights; on the meta device it costs no memory."""
        raise NotImplementedError


BACKBONES = Registry("backbone", BackboneConfig)
"""All backbones by their `type`. A new one is registered in its own file, inside or outside the package."""

ModelConfig = Annotated[BackboneConfig, BACKBONES]


class Backbone(nn.Module, ABC):
    """Backbone(x, t, cond) -> BackboneOutput, for inputs of any height and width that the patch size divides.

    A subclass builds its parts, with its layers as `blocks`, and calls `_finish_init` last. `prediction` has the
    input's shape (twice its channels with `learned_sigma`). The objective decides what it predicts.
    """

    blocks: Layers
    patch_embedding: Linear

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        if config.input_size is None or config.channels is None or config.num_classes is None:
            raise ValueError("a backbone needs input_size, channels and num_classes: see BackboneConfig.complete")
        if config.conditions_on_text and (config.text_dim is None or config.pooled_dim is None):
            raise ValueError("a text backbone needs text_dim and pooled_dim: see BackboneConfig.complete")
        self.config = config
        self.grid = config.grid
        self.out_channels = config.channels * (2 if config.learned_sigma else 1)
        self.patch_dim = config.channels * config.patch_size**2
        self.out_dim = self.out_channels * config.patch_size**2

    @property
    def layers(self) -> Iterator[Layer]:
        """All layers, including those of a decoder."""
        return (module for module in self.modules() if isinstance(module, Layer))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch channels height width"], t: Float[Tensor, " batch"], cond: Conditioning
    ) -> BackboneOutput:
        """Predict from noisy input `x` at times `t` in [0, 1]; 0 is data and 1 is noise."""

    def encode_text(self, cond: Conditioning) -> Conditioning:
        """Return the condition with everything computed that does not depend on time. A sampler calls it once."""
        return cond

    def init_weights(self) -> None:
        """Set every parameter and buffer: Xavier-uniform matrices, zero AdaLN, norms of one.

        A model built on the meta device is complete after `model.to_empty(device=...)` and `init_weights()`.
        """
        for module in self.modules():
            if isinstance(module, nn.RMSNorm | nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, Linear | Experts | Threshold):
                module.init_weights()
        for module in self.modules():
            if isinstance(module, AdaLN):
                nn.init.zeros_(module.linear.weight)
            elif isinstance(module, RouterModule):
                module.init_weights()

    def patchify(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch tokens patch_dim"]:
        """Cut into patches in row-major order; a patch is flattened as (row, column, channel)."""
        p, grid = self.config.patch_size, self.grid_of(x)
        x = x.reshape(*x.shape[:2], grid.height, p, grid.width, p)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(len(x), grid.tokens, p * p * x.shape[1])

    def unpatchify(
        self, patches: Float[Tensor, "batch tokens patch_dim"], grid: Grid | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        """The inverse of `patchify`, for any number of channels. `grid` defaults to the grid of `input_size`."""
        p, grid = self.config.patch_size, grid or self.grid
        x = patches.reshape(len(patches), grid.height, grid.width, p, p, -1).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(len(x), -1, grid.height * p, grid.width * p)

    def grid_of(self, x: Float[Tensor, "batch channels height width"]) -> Grid:
        """Return the grid of patches of an input. Raises LeanDiTError if the patch size does not divide its sides."""
        size = Grid(*x.shape[-2:])
        if not size.divisible(self.config.patch_size):
            sides = f"{size.height} x {size.width} (height x width)"
            raise LeanDiTError(f"an input of {sides} is not divisible by patch_size = {self.config.patch_size}")
        return size.patches(self.config.patch_size)

    def positions(self, grid: Grid) -> Float[Tensor, "tokens dim"]:
        """Return the sin-cos positions of a grid of patches, over the span of `config.span`."""
        weight = self.patch_embedding.weight
        return sincos_positions(self.config.dim, grid, self.config.span, device=weight.device, dtype=weight.dtype)

    def _modulation(self, condition: Float[Tensor, "batch dim"]) -> Modulation:
        """Return the modulation vectors if the layers share AdaLN, else the condition for each layer's AdaLN."""
        shared = self.blocks.shared
        return shared["adaln"](condition) if "adaln" in shared else condition

    def _router_time(self, time: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"] | None:
        """Return the time embedding if routers use it."""
        moe = self.config.moe
        return time if moe is not None and moe.router_input == "plain+time" else None

    def _finish_init(self) -> None:
        """Initialise the weights, unless they are on the meta device and have no content."""
        if not next(self.parameters()).is_meta:
            self.init_weights()


def feed_forward_maker(config: BackboneConfig, index: int, target_dim: int) -> Makers:
    """Return the function that makes a layer's experts, named "moe", or its dense feed-forward."""
    moe = config.moe
    if moe is not None and moe.in_block(index):
        sizes = (config.dim, config.hidden, target_dim)
        return {"moe": lambda: MoELayer(moe, *sizes, tokens=config.grid.tokens, initialise=False)}
    return {"feed_forward": lambda: FeedForward(config.dim, config.hidden)}


def hidden_width(dim: int, ratio: float) -> int:
    """Return dim * ratio, rounded down; 976 / 224, a ratio that is rounded itself, gives 976 for 224."""
    return int(round(dim * ratio, 6))


Modulation = Float[Tensor, "batch dim"] | tuple[Float[Tensor, "batch dim"], ...]


class BackboneLayer(Layer):
    """A layer that is modulated by a condition and has experts or a dense feed-forward."""

    def __init__(self, config: BackboneConfig, names: Sequence[str], own: Parts) -> None:
        super().__init__(names, own)
        self.config = config

    def vectors(self, parts: Parts, modulation: Modulation) -> tuple[Float[Tensor, "batch dim"], ...]:
        """Return the modulation vectors: from the layer's own AdaLN, or those that layers share."""
        return parts["adaln"](modulation) if isinstance(modulation, Tensor) else modulation

    def modulate(
        self,
        x: Float[Tensor, "batch tokens dim"],
        shift: Float[Tensor, "batch dim"],
        scale: Float[Tensor, "batch dim"],
        eps: float | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Return LayerNorm(x) (1 + scale) + shift. `eps` None is norm_eps."""
        return norm_modulate(x, shift, scale, eps or self.config.norm_eps)

    def norm(self, x: Float[Tensor, "batch tokens dim"], eps: float | None = None) -> Float[Tensor, "batch tokens dim"]:
        """Return LayerNorm(x), without weights. `eps` None is norm_eps."""
        return F.layer_norm(x, x.shape[-1:], eps=eps or self.config.norm_eps)

    def feed_forward_or_experts(
        self,
        parts: Parts,
        x: Float[Tensor, "batch tokens dim"],
        shift: Float[Tensor, "batch dim"] | None,
        scale: Float[Tensor, "batch dim"] | None,
        time: Float[Tensor, "batch dim"] | None,
        plain: Float[Tensor, "batch tokens dim"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens dim"], RouterOutput | None]:
        """Apply the experts, or the dense feed-forward if there are none, to the modulated norm of x.

        Without shift and scale it is the norm of x. Routers with another input get the time and `plain`, by default it.
        """
        eps = self.config.feed_forward_norm_eps
        modulated = self.norm(x, eps) if shift is None or scale is None else self.modulate(x, shift, scale, eps)
        if "moe" not in parts:
            return parts["feed_forward"](modulated), None
        if plain is None and parts["moe"].router_input != "modulated":
            plain = self.norm(x, eps)
        return parts["moe"](modulated, plain, time)


def routed(outputs: Sequence[LayerOutput]) -> tuple[RouterOutput, ...]:
    """Return the routers' outputs of the layers with experts."""
    return tuple(output.routing for output in outputs if output.routing is not None)
