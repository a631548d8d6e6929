"""Weights and tokenizers from a folder: no network, no pickle, no code of the model's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leandit.errors import LeanDiTError

_CLASSES = {"sentence": "AutoModel", "clip": "CLIPTextModel", "t5": "AutoModelForTextEncoding", "llm": "AutoModel"}
_OFFLINE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load_model(kind: str, folder: Path) -> nn.Module:
    """Return the model in float32; files that are damaged or lack weights are a LeanDiTError."""
    model: Any = load_pretrained(_CLASSES[kind], folder)
    # T5's wrapper names its embedding twice, which would make two weights of it in a checkpoint.
    model = model.encoder if kind == "t5" else model
    # BERT's pooler is often left out of a checkpoint, and not read here.
    if hasattr(model, "pooler"):
        model.pooler = None
    return model


def load_pretrained(class_name: str, folder: Path) -> nn.Module:
    """Return a model of a class of transformers in float32; files damaged or lacking weights are a LeanDiTError."""
    loader = getattr(_import_transformers(), class_name)
    with _quiet(), _explained(folder, "model"):
        model, report = loader.from_pretrained(
            folder, **_OFFLINE, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing or report["mismatched_keys"]:
        first = missing[0] if missing else str(next(iter(report["mismatched_keys"])))
        raise LeanDiTError(
            f"{folder}: the weights do not fit config.json: {first} is missing or of another shape; "
            "fetch the model again, completely"
        )
    return model


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer; files that are missing or damaged are a LeanDiTError."""
    transformers = _import_transformers()
    with _quiet(), _explained(folder, "tokenizer"):
        return transformers.AutoTokenizer.from_pretrained(folder, **_OFFLINE)


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise LeanDiTError(
            f'text encoders need the transformers package ({error}); run: pip install "leandit[text]"'
        ) from None
    return transformers


@contextmanager
def _explained(folder: Path, part: str) -> Iterator[None]:
    try:
        yield
    # A damaged folder makes transformers raise a dozen kinds of error, KeyError and AttributeError too.
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise LeanDiTError(
            f"{folder}: the {part} cannot be loaded: {type(error).__name__}: {reason}\n"
            "Fetch the model again, completely; models that bring their own Python code are not run"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and reports off the terminal: what matters in them becomes an error."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
