"""From texts to features: text encoders, frozen or fine-tuned, one or several, and a cache of their features."""

from leandit.text.cache import CachedEncoder, DiskCache
from leandit.text.combined import CombinedEncoder, attach_finetuned, build_text_encoder, check_captions
from leandit.text.config import (
    ClipEncoderConfig,
    EncoderConfig,
    LlmEncoderConfig,
    SentenceEncoderConfig,
    T5EncoderConfig,
    TextConfig,
)
from leandit.text.features import TextEncoder, TextFeatures, TextRow, pad_rows
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
