"""The parts of diffusion transformers."""

from leandit.nn.attention import SelfAttention
from leandit.nn.cross_attention import CrossAttention
from leandit.nn.embeddings import LabelEmbedding, TimestepEmbedding, sincos_positions
from leandit.nn.layers import Layer, Layers, Makers, Parts, Sharing, kept
from leandit.nn.parts import AdaLN, FeedForward, FinalLayer, Linear

__all__ = [
    "AdaLN",
    "CrossAttention",
    "FeedForward",
    "FinalLayer",
    "LabelEmbedding",
    "Layer",
    "Layers",
    "Linear",
    "Makers",
    "Parts",
    "SelfAttention",
    "Sharing",
    "TimestepEmbedding",
    "kept",
    "sincos_positions",
]
