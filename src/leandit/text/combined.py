"""Text encoders side by side, as one: build them, check the captions, join the features."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import torch
from torch import nn

from leandit.errors import LeanDiTError
from leandit.text.cache import CachedEncoder
from leandit.text.config import TextConfig
from leandit.text.features import RowEncoder, TextEncoder, TextFeatures, TextRow, pad_rows
from leandit.text.transformer import TransformerEncoder


def build_text_encoder(config: TextConfig, device: torch.device | str = "cpu") -> CombinedEncoder:
    """Load the encoders from this machine's disk to `device`. Every frozen encoder gets a cache.

    Raises LeanDiTError if transformers or a model is missing or unusable, or if the cache folder is not writable.
    """
    folder = None if config.cache is None else Path(config.cache)
    encoders: list[RowEncoder] = []
    for encoder in config.encoders:
        plain = TransformerEncoder(encoder, config.batch_size).to(device)
        encoders.append(plain if encoder.finetune else CachedEncoder(plain, folder, config.memory_mib * 1024**2))
    return CombinedEncoder(encoders, config.max_caption_chars)


class CombinedEncoder:
    """One or several encoders as one.

    Each encoder has its own columns, which are zero for the tokens of the others: with features a of width A and b of
    width B, the tokens are [a ; 0] and [0 ; b], of width A + B. A linear projection of these features is therefore one
    projection per encoder. Pooled vectors are concatenated.

    `finetuned` holds the encoders that are trained; the key is an encoder's position among all encoders.
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
        """Return the features of the texts on the CPU, padded to the longest. Raises LeanDiTError for a bad text."""
        if not checked:
            check_captions(texts, self._max_chars)
        distinct = list(dict.fromkeys(texts))
        by_encoder = [encoder.rows(distinct) for encoder in self._encoders]
        rows = {text: _join(parts) for text, *parts in zip(distinct, *by_encoder, strict=True)}
        return pad_rows([rows[text] for text in texts])

    def copy(self) -> CombinedEncoder:
        """Return a copy with its own weights for the fine-tuned encoders; it shares the frozen encoders."""
        encoders = [copy.deepcopy(encoder) if _is_finetuned(encoder) else encoder for encoder in self._encoders]
        return CombinedEncoder(encoders, self._max_chars)


def attach_finetuned(model: nn.Module, text: TextEncoder | None) -> None:
    """Make the fine-tuned encoders a part of the model, under the name `text_encoder`.

    The model's optimisers, clipping, averages and checkpoints then include them. Frozen encoders stay outside.
    """
    if isinstance(text, CombinedEncoder) and len(text.finetuned):
        model.text_encoder = text.finetuned


def _is_finetuned(encoder: RowEncoder) -> TypeGuard[TransformerEncoder]:
    return isinstance(encoder, TransformerEncoder) and encoder.finetune


def _join(rows: Sequence[TextRow]) -> TextRow:
    """Join the encoders' features of one text: block-diagonal tokens, concatenated pooled vectors."""
    if len(rows) == 1:
        return rows[0]
    return TextRow(torch.block_diag(*(row.tokens for row in rows)), torch.cat([row.pooled for row in rows]))


def check_captions(
    texts: Sequence[object], max_chars: int, allow_empty: bool = True, names: Sequence[str] | None = None
) -> None:
    """Raise LeanDiTError for the first text that is not a string, is longer than `max_chars`, or must not be empty.

    The empty text is the unconditional caption; a prompt must not be empty (`allow_empty=False`). The error names a
    text by its entry in `names`, or by its number if no names are given.
    """
    if isinstance(texts, str):
        raise LeanDiTError(f"expected a list of texts, got one text ({texts[:40]!r}); put it in a list")
    for place, text in enumerate(texts):
        problem = _problem(text, max_chars, allow_empty)
        if problem:
            name = names[place] if names else f"caption {place + 1} of {len(texts)}"
            raise LeanDiTError(f"{name}: {problem}")


def _problem(text: object, max_chars: int, allow_empty: bool) -> str | None:
    if not isinstance(text, str):
        return f"{type(text).__name__} is not a text ({str(text)[:40]!r}); write a string"
    if len(text) > max_chars:
        return (
            f"{len(text)} characters, more than max_caption_chars={max_chars} ({text[:40]!r}...); "
            "shorten it, or raise text.max_caption_chars"
        )
    if not allow_empty and not text.strip():
        return "empty; describe the picture"
    if any("\ud800" <= char <= "\udfff" for char in text):
        return f"{text[:40]!r} contains half a surrogate pair, which is not valid Unicode; save its source as UTF-8"
    return None
