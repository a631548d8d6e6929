"""The features of texts, per text or padded to a batch, and the interface of text encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class TextRow:
    """The float32 features of one text, without padding."""

    tokens: Float[Tensor, "text_tokens text_dim"]
    pooled: Float[Tensor, " pooled_dim"]

    @property
    def num_bytes(self) -> int:
        """Return the size of both tensors."""
        return self.tokens.nbytes + self.pooled.nbytes


@dataclass(frozen=True)
class TextFeatures:
    """The float32 features of a batch of texts.

    `mask` is True for tokens and False for padding: shorter texts are padded with zeros after their end. `pooled` is
    one vector for the whole text.
    """

    tokens: Float[Tensor, "batch text_tokens text_dim"]
    mask: Bool[Tensor, "batch text_tokens"]
    pooled: Float[Tensor, "batch pooled_dim"]

    def rows(self) -> list[TextRow]:
        """Return one row per text, without its padding."""
        return [
            TextRow(tokens[mask], pooled)
            for tokens, mask, pooled in zip(self.tokens, self.mask, self.pooled, strict=True)
        ]

    def map(self, change: Callable[[Tensor], Tensor]) -> TextFeatures:
        """Return a copy with `change` applied to every tensor. A move to another device is an example."""
        return TextFeatures(change(self.tokens), change(self.mask), change(self.pooled))


def pad_rows(rows: Sequence[TextRow]) -> TextFeatures:
    """Return the rows as one batch, padded to the longest."""
    lengths = torch.tensor([len(row.tokens) for row in rows])
    tokens = pad_sequence([row.tokens for row in rows], batch_first=True)
    mask = torch.arange(tokens.shape[1])[None] < lengths[:, None]
    return TextFeatures(tokens, mask.to(tokens.device), torch.stack([row.pooled for row in rows]))


class _Described(Protocol):
    """The facts that every encoder states about itself."""

    @property
    def text_dim(self) -> int:
        """Return the width of the token features."""

    @property
    def pooled_dim(self) -> int:
        """Return the width of the pooled vector."""

    @property
    def fingerprint(self) -> str:
        """Return a hash of everything that changes the features: weights, tokenizer, layers, pooling. Not of paths."""


@runtime_checkable
class TextEncoder(_Described, Protocol):
    """The interface through which models, samplers and training get the features of texts."""

    def encode(self, texts: Sequence[str], checked: bool = False) -> TextFeatures:
        """Return the features of the texts on the CPU; "" is the unconditional text.

        Raises LeanDiTError for a bad text, unless the caller has `checked` the texts.
        """


@runtime_checkable
class RowEncoder(_Described, Protocol):
    """One encoder, with or without a cache."""

    def rows(self, texts: Sequence[str]) -> list[TextRow]:
        """Return the features of each text, on the CPU."""
