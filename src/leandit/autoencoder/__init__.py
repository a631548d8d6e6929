"""Codecs: what stands between pictures and what a model learns."""

from leandit.autoencoder.codec import CODECS, AnyCodec, Codec, CodecConfig, LatentsOnlyConfig, PixelsConfig, Shape

__all__ = ["CODECS", "AnyCodec", "Codec", "CodecConfig", "LatentsOnlyConfig", "PixelsConfig", "Shape"]
