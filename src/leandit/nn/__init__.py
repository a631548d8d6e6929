"""The parts that diffusion transformers are made of."""

from leandit.nn.attention import SelfAttention
from leandit.nn.embeddings import LabelEmbedding, TimestepEmbedding
from leandit.nn.feed_forward import FeedForward
from leandit.nn.linear import Linear
from leandit.nn.modulation import AdaLN, FinalLayer, modulate
from leandit.nn.positions import sincos_positions

__all__ = [
    "AdaLN",
    "FeedForward",
    "FinalLayer",
    "LabelEmbedding",
    "Linear",
    "SelfAttention",
    "TimestepEmbedding",
    "modulate",
    "sincos_positions",
]
