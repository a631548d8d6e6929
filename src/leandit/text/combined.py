"""Text encoders side by side, as one: the tokens of all, one encoder's after the other's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch

from leandit.text.captions import check_captions
from leandit.text.features import TextFeatures, TextRow, pad_rows


class _Described(Protocol):
    @property
    def text_dim(self) -> int:
        """Return the width of the token features."""

    @property
    def pooled_dim(self) -> int:
        """Return the width of the pooled vector."""

    @property
    def fingerprint(self) -> str:
        """Return what decides the features of a text: weights, tokenizer, layers, pooling; not where they lie."""


@runtime_checkable
class TextEncoder(_Described, Protocol):
    """What a model's text comes from."""

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """Return the features of the texts on the CPU; "" is the unconditional one. A bad text is a LeanDiTError."""


@runtime_checkable
class RowEncoder(_Described, Protocol):
    """One encoder, plain or cached."""

    def rows(self, texts: Sequence[str]) -> list[TextRow]:
        """Return the features of each text, on the CPU."""


class CombinedEncoder:
    """One or several encoders as one.

    Each encoder has features of its own, zero for the other encoders' tokens: with features a of width A and b of
    width B, the tokens are [a ; 0] and [0 ; b] of width A + B. So the linear projection behind them is a projection
    per encoder, where padding all to the width of the widest would make them share one. Pooled vectors are
    concatenated.
    """

    def __init__(self, encoders: Sequence[RowEncoder], max_caption_chars: int) -> None:
        self._encoders = tuple(encoders)
        self._max_chars = max_caption_chars
        self.text_dim = sum(encoder.text_dim for encoder in encoders)
        self.pooled_dim = sum(encoder.pooled_dim for encoder in encoders)
        self.fingerprint = hashlib.sha256("\n".join(e.fingerprint for e in encoders).encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """Return the features of the texts on the CPU, padded to the longest; a bad text is a LeanDiTError."""
        check_captions(texts, self._max_chars)
        by_encoder = [encoder.rows(texts) for encoder in self._encoders]
        return pad_rows([_join(rows) for rows in zip(*by_encoder, strict=True)])


def _join(rows: Sequence[TextRow]) -> TextRow:
    """Return one text's rows as one: block-diagonal tokens, concatenated pooled vectors."""
    if len(rows) == 1:
        return rows[0]
    return TextRow(torch.block_diag(*(row.tokens for row in rows)), torch.cat([row.pooled for row in rows]))
