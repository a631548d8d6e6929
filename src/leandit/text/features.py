"""The features of texts: padded to a batch, or one row per text as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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

    `mask` is True where there is a token; shorter texts are padded with zeros behind their end. `pooled` is one
    vector for the whole text.
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
        """Return a copy with `change` applied to every tensor, such as a move to another device."""
        return TextFeatures(change(self.tokens), change(self.mask), change(self.pooled))


def pad_rows(rows: Sequence[TextRow]) -> TextFeatures:
    """Return the rows as one batch, padded to the longest."""
    lengths = torch.tensor([len(row.tokens) for row in rows])
    tokens = pad_sequence([row.tokens for row in rows], batch_first=True)
    mask = torch.arange(tokens.shape[1])[None] < lengths[:, None]
    return TextFeatures(tokens, mask.to(tokens.device), torch.stack([row.pooled for row in rows]))
