"""Codecs: they convert between pictures and the data that a model learns."""

from leandit.autoencoder.codec import CODECS, AnyCodec, Codec, CodecConfig, LatentsOnlyConfig, PixelsConfig, Shape

__all__ = ["CODECS", "AnyCodec", "Codec", "CodecConfig", "LatentsOnlyConfig", "PixelsConfig", "Shape"]
