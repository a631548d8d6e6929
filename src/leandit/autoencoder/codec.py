"""The codec of a run: it turns data into what the model learns, and what the model draws into pictures."""

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
    """Stands between data and model in training, sampling, evaluation and on the page.

    `encode` and `decode` work on batches, on the device of their input. A codec that cannot decode says why in
    `no_pictures`; all others leave it None.
    """

    no_pictures: str | None = None

    @abstractmethod
    def shape(self, data: Shape) -> Shape:
        """Return the shape of a sample as the model sees it, for a sample of the data."""

    @abstractmethod
    def encode(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch z_channels z_height z_width"]:
        """Return what the model learns, for pictures in [-1, 1] or for stored latents."""

    @abstractmethod
    def decode(
        self, z: Float[Tensor, "batch z_channels z_height z_width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return pictures in about [-1, 1]; LeanDiTError from a codec that cannot decode."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides the result of `encode`, as JSON; a run keeps it and refuses to resume with another."""
        return {}


class CodecConfig(Config):
    """A kind of codec. `reads` says whether the data are pictures or latents of an autoencoder."""

    type: str
    """The tag by which configurations name the codec."""

    @property
    def reads(self) -> Literal["pictures", "latents"]:
        """What the data must be."""
        return "pictures"

    def build(self) -> Codec:
        """Return the codec."""
        raise NotImplementedError


CODECS = Registry("codec", CodecConfig)
"""All codecs by their `type`; a file of its own, also outside the package, registers another."""

AnyCodec = Annotated[CodecConfig, CODECS]


@CODECS.register
class PixelsConfig(CodecConfig):
    """Pictures as they are: the model learns pixels in [-1, 1]."""

    type: Literal["pixels"] = "pixels"

    def build(self) -> Codec:
        return PixelCodec()


@CODECS.register
class LatentsOnlyConfig(CodecConfig):
    """Latents that an autoencoder outside the run has made: the model learns and draws latents as they are stored."""

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
    """The identity on latents, which are no pictures."""

    no_pictures = (
        "the run learned latents, which are no pictures; `leandit sample` writes them to samples.npz, "
        "leandit.sampling.draw_batches returns them. Decode them with the autoencoder that made the training data"
    )

    def decode(
        self, z: Float[Tensor, "batch z_channels z_height z_width"]
    ) -> Float[Tensor, "batch channels height width"]:
        raise LeanDiTError(self.no_pictures)
