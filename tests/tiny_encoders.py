"""Tiny encoders with random weights: real classes of transformers, saved as folders, with a tokenizer of few words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "red", "green", "apple", "tiger", "noto", "fluent", "emoji", ","]


def save_tokenizer(folder: Path, template: str | None, pad: str | None = "<pad>") -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token=pad
    )
    fast.save_pretrained(folder)


def build(kind: str, width: int = 16, seed: int = 0) -> tuple[Any, str | None]:
    """Return a tiny model of a kind, and the template of its tokenizer."""
    import transformers as hf

    torch.manual_seed(seed)
    sizes = {"vocab_size": 12, "hidden_size": width, "intermediate_size": 24, "num_attention_heads": 2}
    if kind == "clip":
        ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        text = hf.CLIPTextConfig(**sizes, num_hidden_layers=3, max_position_embeddings=12, **ends)
        return hf.CLIPTextModel(text), "<s> $A </s>"
    if kind == "t5":
        config = hf.T5Config(
            vocab_size=12, d_model=width, d_kv=8, d_ff=24, num_layers=3, num_heads=2, decoder_start_token_id=0
        )
        return hf.T5EncoderModel(config), "$A </s>"
    if kind == "llm":
        config = hf.LlamaConfig(**sizes, num_hidden_layers=3, num_key_value_heads=1, max_position_embeddings=32)
        return hf.LlamaForCausalLM(config), None
    return hf.BertModel(hf.BertConfig(**sizes, num_hidden_layers=3, max_position_embeddings=16)), "<s> $A </s>"


def save_encoder(folder: Path, kind: str, width: int = 16, seed: int = 0) -> Path:
    """Write a tiny model and its tokenizer as a folder of transformers, and return the folder."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model, template = build(kind, width, seed)
    # Weights of the size that initialisation gives them would make every layer nearly the identity.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    save_tokenizer(folder, template, None if kind == "llm" else "<pad>")
    return folder


def text_model(*encoders: dict[str, Any], backbone: str = "dit_air") -> list[str]:
    """Return overrides that make the preset `tiny` a dense model of one stream, conditioned on these encoders."""
    size = ["model.dim=32", "model.depth=2", "model.heads=2", "model.patch_size=8", "train.batch_size=4"]
    sampling = ["sampling.sampler.steps=2", "sampling.guidance.scale=2", "sampling.grid=2"]
    return [f"model.type={backbone}", *size, *sampling, f"text.encoders={json.dumps(encoders)}"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per kind of encoder; to be read only."""
    return {kind: save_encoder(tmp_path_factory.mktemp(kind), kind) for kind in ("sentence", "clip", "t5", "llm")}
