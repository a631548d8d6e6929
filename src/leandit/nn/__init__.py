"""The parts that diffusion transformers are made of."""

from leandit.nn.attention import CrossAttention, SelfAttention
from leandit.nn.embeddings import LabelEmbedding, TimestepEmbedding
from leandit.nn.feed_forward import FeedForward
from leandit.nn.linear import Linear
from leandit.nn.modulation import AdaLN, FinalLayer
from leandit.nn.positions import sincos_positions
from leandit.nn.sharing import Layers, Sharing

__all__ = [
    "AdaLN",
    "CrossAttention",
    "FeedForward",
    "FinalLayer",
    "LabelEmbedding",
    "Layers",
    "Linear",
    "SelfAttention",
    "Sharing",
    "TimestepEmbedding",
    "sincos_positions",
]
