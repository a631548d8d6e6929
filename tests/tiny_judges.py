"""Tiny judges with random weights and jobs for them: real classes of transformers, and runs that were never trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from leandit.data import build_source
from leandit.evaluation.metric import Job
from leandit.sampling import LoadedRun
from tiny_encoders import text_model

WORDS = ["<pad>", "<unk>", "a", "photo", "depicts", "red", "green", "apple", "tiger", ",", "<s>", "</s>"]


def tokenizer() -> Any:
    """Return a tokenizer whose last word ends a text and whose last but one begins it, as CLIP's do."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    ends = [("<s>", 10), ("</s>", 11)]
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def loud(model: torch.nn.Module, seed: int = 0) -> Any:
    """Make the weights large enough for every layer to matter."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.2)
    return model.eval()


def clip_model(projection: int = 16) -> Any:
    from transformers import CLIPConfig, CLIPModel

    sizes = {"intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 10, "eos_token_id": 11, "pad_token_id": 11}
    text = {**sizes, **ends, "hidden_size": 16, "vocab_size": len(WORDS), "max_position_embeddings": 12}
    vision = {**sizes, "hidden_size": 20, "image_size": 16, "patch_size": 8}
    return loud(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection)))


def save_clip(folder: Path, projection: int = 16) -> Path:
    clip_model(projection).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def pictures(count: int, size: int = 16, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, size, size, 3), generator=draws, dtype=torch.uint8)


def job(overrides: Sequence[str] = (), num_samples: int = 100, **options: Any) -> Job:
    """Return a job on the untrained preset `tiny`, a class model; with text_job's overrides, on a text model."""
    from leandit.diffusion import build_objective
    from leandit.presets import run_config
    from leandit.run.resolve import resolve
    from leandit.text import build_text_encoder

    config = run_config("tiny", list(overrides))
    text = None if config.text is None else build_text_encoder(config.text)
    source = build_source(config.data.source)
    config = resolve(config, source, text)
    objective = build_objective(config.objective)
    run = LoadedRun(config, config.model.build().eval(), objective, source.class_names, 0, Path("run"), text)
    return Job(run, num_samples, source, **options)


def text_job(encoder: Path, overrides: Sequence[str] = (), **options: Any) -> Job:
    """Return a job on an untrained text model that reads the tiny sentence encoder in a folder."""
    return job([*text_model({"type": "sentence", "path": str(encoder), "max_tokens": 16}), *overrides], **options)
