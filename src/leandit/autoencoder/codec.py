"""The codec of a run: it encodes data for the model, and decodes the model's output to pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from leandit.config import Config, Registry
from leandit.errors import LeanDiTError

# Channels, height, width.
Shape = tuple[int, int, int]


class Codec(ABC):
    """Converts between data and model in training, sampling, evaluation and on the page.

    `encode` and `decode` work on batches, on the device of their input. A codec that cannot decode gives the reason in
    `no_pictures`; for all others it is None.
    """

    no_pictures: str | None = None

    @abstractmethod
    def shape(self, data: Shape) -> Shape:
        """Return the shape of a sample at the model's input, given its shape in the data."""

    @abstractmethod
    def encode(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch z_channels z_height z_width"]:
        """Return the model's data for pictures in [-1, 1] or for stored latents."""

    @abstractmethod
    def decode(
        self, z: Float[Tensor, "batch z_channels z_height z_width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return pictures in about [-1, 1]. Raises LeanDiTError if the codec cannot decode."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that determines the result of `encode`, as JSON. A run refuses to resume with another identity."""
        return {}


class CodecConfig(Config):
    """A kind of codec. `reads` says whether the data are pictures or latents of an autoencoder."""

    type: str
    """The name of the codec in configurations."""

    @property
    def reads(self) -> Literal["pictures", "latents"]:
        """The kind of data that the codec needs."""
        return "pictures"

    def build(self) -> Codec:
        """Return the codec."""
        raise NotImplementedError


CODECS = Registry("codec", CodecConfig)
"""All codecs by their `type`. A new codec is registered in its own file, inside or outside the package."""

AnyCodec = Annotated[CodecConfig, CODECS]


@CODECS.register
class PixelsConfig(CodecConfig):
    """Pixels: the model learns z = (x - shift) * scale, with x in [-1, 1]."""

    type: Literal["pixels"] = "pixels"
    shift: float = Field(0.0, ge=-1, le=1)
    """The value in [-1, 1] that the model sees as 0. With 1 white is 0, so a white background asks nothing of the model
    but to remove noise: see docs/design/allocation.md."""
    scale: float = Field(1.0, gt=0, le=100)
    """The factor after the shift. Noise has standard deviation 1, so it decides how loud pictures are against noise."""

    def build(self) -> Codec:
        return PixelCodec(self.shift, self.scale)


@CODECS.register
class LatentsOnlyConfig(CodecConfig):
    """Latents from an autoencoder outside the run: the model learns and draws latents as they are stored."""

    type: Literal["latents"] = "latents"

    @property
    def reads(self) -> Literal["pictures", "latents"]:
        return "latents"

    def build(self) -> Codec:
        return LatentsOnlyCodec()


class PixelCodec(Codec):
    """z = (x - shift) * scale; with the defaults it is the identity, to the bit."""

    def __init__(self, shift: float = 0.0, scale: float = 1.0) -> None:
        self.shift, self.scale = shift, scale

    @property
    def identity(self) -> Mapping[str, Any]:
        # Checkpoints from before there was a shift have an empty identity.
        facts = {"shift": (self.shift, 0.0), "scale": (self.scale, 1.0)}
        return {name: value for name, (value, default) in facts.items() if value != default}

    def shape(self, data: Shape) -> Shape:
        return data

    def encode(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch z_channels z_height z_width"]:
        return (images - self.shift) * self.scale if self.identity else images

    def decode(
        self, z: Float[Tensor, "batch z_channels z_height z_width"]
    ) -> Float[Tensor, "batch channels height width"]:
        return z / self.scale + self.shift if self.identity else z


class LatentsOnlyCodec(PixelCodec):
    """The identity on latents, which are not pictures."""

    no_pictures = (
        "the run learned latents, which are not pictures; `leandit sample` writes them to samples.npz, and "
        "leandit.sampling.draw_batches returns them. Decode them with the autoencoder that made the training data"
    )

    def decode(
        self, z: Float[Tensor, "batch z_channels z_height z_width"]
    ) -> Float[Tensor, "batch channels height width"]:
        raise LeanDiTError(self.no_pictures)
