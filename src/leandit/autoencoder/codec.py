"""The codec of a run: it encodes data for the model, and decodes the model's output to pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from jaxtyping import Float
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
    """Pictures as they are: the model learns pixels in [-1, 1]."""

    type: Literal["pixels"] = "pixels"

    def build(self) -> Codec:
        return PixelCodec()


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
    """The identity."""

    def shape(self, data: Shape) -> Shape:
        return data

    def encode(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch z_channels z_height z_width"]:
        return images

    def decode(
        self, z: Float[Tensor, "batch z_channels z_height z_width"]
    ) -> Float[Tensor, "batch channels height width"]:
        return z


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
