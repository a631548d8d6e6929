"""Text encoders side by side, as one: the tokens of all, one encoder's after the other's."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeGuard, runtime_checkable

import torch
from torch import nn

from leandit.text.captions import check_captions
from leandit.text.features import TextFeatures, TextRow, pad_rows
from leandit.text.transformer import TransformerEncoder


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

    def encode(self, texts: Sequence[str], checked: bool = False) -> TextFeatures:
        """Return the features of the texts on the CPU; "" is the unconditional one.

        A bad text is a LeanDiTError; texts that are `checked` already are not checked again.
        """


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

    `finetuned` holds the encoders that are trained, by their place among all.
    """

    def __init__(self, encoders: Sequence[RowEncoder], max_caption_chars: int) -> None:
        self._encoders = tuple(encoders)
        self._max_chars = max_caption_chars
        self.text_dim = sum(encoder.text_dim for encoder in encoders)
        self.pooled_dim = sum(encoder.pooled_dim for encoder in encoders)
        self.fingerprint = hashlib.sha256("\n".join(e.fingerprint for e in encoders).encode()).hexdigest()
        trained = {str(place): encoder for place, encoder in enumerate(encoders) if _is_finetuned(encoder)}
        self.finetuned = nn.ModuleDict(trained)

    def encode(self, texts: Sequence[str], checked: bool = False) -> TextFeatures:
        """Return the features of the texts on the CPU, padded to the longest; a bad text is a LeanDiTError."""
        if not checked:
            check_captions(texts, self._max_chars)
        distinct = list(dict.fromkeys(texts))
        by_encoder = [encoder.rows(distinct) for encoder in self._encoders]
        rows = dict(zip(distinct, map(_join, zip(*by_encoder, strict=True)), strict=True))
        return pad_rows([rows[text] for text in texts])

    def copy(self) -> CombinedEncoder:
        """Return a twin whose fine-tuned encoders have weights of their own; the frozen ones are the same objects."""
        encoders = [copy.deepcopy(encoder) if _is_finetuned(encoder) else encoder for encoder in self._encoders]
        return CombinedEncoder(encoders, self._max_chars)


def attach_finetuned(model: nn.Module, text: TextEncoder | None) -> None:
    """Make the encoders that are fine-tuned a part of the model, under `text_encoder`.

    The model's optimisers, clipping, averages and checkpoints then hold them as well. Frozen encoders stay outside.
    """
    if isinstance(text, CombinedEncoder) and len(text.finetuned):
        model.text_encoder = text.finetuned


def _is_finetuned(encoder: RowEncoder) -> TypeGuard[TransformerEncoder]:
    return isinstance(encoder, TransformerEncoder) and encoder.finetune


def _join(rows: Sequence[TextRow]) -> TextRow:
    """Return one text's rows as one: block-diagonal tokens, concatenated pooled vectors."""
    if len(rows) == 1:
        return rows[0]
    return TextRow(torch.block_diag(*(row.tokens for row in rows)), torch.cat([row.pooled for row in rows]))
