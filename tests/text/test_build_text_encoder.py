"""From the config to features: MiniLM's real weights, encoders side by side, and captions that are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from leandit.errors import LeanDiTError
from leandit.text import (
    ClipEncoderConfig,
    LlmEncoderConfig,
    TextConfig,
    TransformerEncoder,
    build_text_encoder,
    check_captions,
)


def test_minilm_knows_what_is_alike() -> None:
    encoder = build_text_encoder(TextConfig())
    assert (encoder.text_dim, encoder.pooled_dim) == (384, 384)
    features = encoder.encode(["red apple, noto emoji", "green apple, noto emoji", "tiger", ""])
    # [CLS] red apple , not ##o em ##oj ##i [SEP]
    assert features.mask.sum(1).tolist() == [10, 10, 3, 2]
    unit = torch.nn.functional.normalize(features.pooled, dim=-1)
    alike = unit @ unit.T
    assert alike[0, 1] > 0.8
    assert alike[0, 2] < 0.5
    assert torch.allclose(features.pooled[2], features.tokens[2, :3].mean(0), atol=1e-6)
    assert features.tokens[3, :2].abs().max() > 0.1
    assert features.tokens.dtype == features.pooled.dtype == torch.float32


def test_batches_agree_with_single_texts(folders: dict[str, Path]) -> None:
    texts = ["red apple, fluent emoji", "", "a much longer caption of a tiger that eats a green apple"]
    one, many = (build_text_encoder(TextConfig(batch_size=size)).encode(texts) for size in (1, 8))
    assert (one.tokens - many.tokens).abs().max() < 1e-5
    assert (one.pooled - many.pooled).abs().max() < 1e-5
    assert torch.equal(one.mask, many.mask)


def test_side_by_side_each_encoder_has_features_of_its_own(folders: dict[str, Path], tmp_path: Path) -> None:
    clip = ClipEncoderConfig(path=str(folders["clip"]), max_tokens=12, layers=(-2, -1))
    llm = LlmEncoderConfig(path=str(folders["llm"]), max_tokens=12)
    encoder = build_text_encoder(TextConfig(encoders=(clip, llm), cache=str(tmp_path)))
    assert (encoder.text_dim, encoder.pooled_dim) == (48, 32)
    texts = ["red apple tiger", ""]
    features = encoder.encode(texts)
    # Start and end tokens of CLIP, none of the language model, which gets its start token for the empty text.
    assert features.mask.sum(1).tolist() == [5 + 3, 2 + 1]
    for row, text in enumerate(texts):
        a, b = (TransformerEncoder(config).rows([text])[0] for config in (clip, llm))
        tokens = features.tokens[row][features.mask[row]]
        split = len(a.tokens)
        assert torch.equal(tokens[:split, :32], a.tokens)
        assert torch.equal(tokens[split:, 32:], b.tokens)
        assert tokens[:split, 32:].abs().sum() == tokens[split:, :32].abs().sum() == 0
        assert torch.equal(features.pooled[row], torch.cat([a.pooled, b.pooled]))
        assert features.mask[row, : split + len(b.tokens)].all()
    alone = build_text_encoder(TextConfig(encoders=(clip,)))
    swapped = build_text_encoder(TextConfig(encoders=(llm, clip)))
    assert len({encoder.fingerprint, alone.fingerprint, swapped.fingerprint}) == 3


def test_captions_that_are_refused(folders: dict[str, Path]) -> None:
    clip = ClipEncoderConfig(path=str(folders["clip"]), max_tokens=12)
    encoder = build_text_encoder(TextConfig(encoders=(clip,), max_caption_chars=20))
    assert encoder.encode(["x" * 20]).mask.all()
    for bad, expected in [
        (["red", "x" * 21], "caption 2 of 2: 21 characters, more than max_caption_chars=20"),
        ([3], "caption 1 of 1: int is not a text"),
        ([b"red"], "bytes is not a text"),
        ([None], "NoneType is not a text"),
        (["\ud83d"], "half a surrogate pair"),
    ]:
        with pytest.raises(LeanDiTError, match=expected):
            check_captions(bad, 20)
    with pytest.raises(LeanDiTError, match="caption 1 of 1: 21 characters"):
        encoder.encode(["x" * 21])
    with pytest.raises(LeanDiTError, match="put it in a list"):
        check_captions("red", 20)
    check_captions([""], 20)
    for empty in ("", " \n"):
        with pytest.raises(LeanDiTError, match="caption 1 of 1: empty; describe the picture"):
            check_captions([empty], 20, allow_empty=False)


def test_transformers_is_imported_only_to_load_an_encoder() -> None:
    script = "import sys, leandit.text, leandit.data; assert not {'transformers', 'pyarrow'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
