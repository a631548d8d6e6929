"""The parts that diffusion transformers are made of."""

from leandit.nn.attention import CrossAttention, SelfAttention
from leandit.nn.embeddings import LabelEmbedding, TimestepEmbedding
from leandit.nn.layers import Layer, Layers, Makers, Parts, Sharing
from leandit.nn.linear import FeedForward, Linear
from leandit.nn.modulation import AdaLN, FinalLayer
from leandit.nn.positions import sincos_positions

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
    "sincos_positions",
]
