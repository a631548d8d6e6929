"""Texts to features: encoders, frozen or fine-tuned, several side by side, and a cache of what they computed."""

from leandit.text.build import build_text_encoder
from leandit.text.cache import CachedEncoder, DiskCache
from leandit.text.captions import check_captions
from leandit.text.combined import CombinedEncoder, TextEncoder, attach_finetuned
from leandit.text.config import (
    ClipEncoderConfig,
    EncoderConfig,
    LlmEncoderConfig,
    SentenceEncoderConfig,
    T5EncoderConfig,
    TextConfig,
)
from leandit.text.features import TextFeatures, TextRow, pad_rows
from leandit.text.transformer import TransformerEncoder

__all__ = [
    "CachedEncoder",
    "ClipEncoderConfig",
    "CombinedEncoder",
    "DiskCache",
    "EncoderConfig",
    "LlmEncoderConfig",
    "SentenceEncoderConfig",
    "T5EncoderConfig",
    "TextConfig",
    "TextEncoder",
    "TextFeatures",
    "TextRow",
    "TransformerEncoder",
    "attach_finetuned",
    "build_text_encoder",
    "check_captions",
    "pad_rows",
]
