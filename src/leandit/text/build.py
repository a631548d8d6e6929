"""From the config to the encoder that a run uses."""

from __future__ import annotations

from pathlib import Path

import torch

from leandit.text.cache import CachedEncoder
from leandit.text.combined import CombinedEncoder, RowEncoder
from leandit.text.config import TextConfig
from leandit.text.transformer import TransformerEncoder


def build_text_encoder(config: TextConfig, device: torch.device | str = "cpu") -> CombinedEncoder:
    """Load the encoders from this machine's disk, with a cache before each that is frozen; they compute on `device`.

    Raises LeanDiTError where transformers or a model is missing or unusable, or the cache folder not writable.
    """
    folder = None if config.cache is None else Path(config.cache)
    encoders: list[RowEncoder] = []
    for encoder in config.encoders:
        plain = TransformerEncoder(encoder, config.batch_size).to(device)
        encoders.append(plain if encoder.finetune else CachedEncoder(plain, folder, config.memory_mib * 1024**2))
    return CombinedEncoder(encoders, config.max_caption_chars)
