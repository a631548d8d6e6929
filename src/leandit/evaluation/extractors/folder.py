"""Weights that the user brings: where they lie, what kind they are, and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors.weights import sha256_of
from leandit.evaluation.metric import Job


def named_path(job: Job, name: str, metric: str, what: str) -> Path:
    """Return the path that --weights-from gave `name`; a LeanDiTError that says what belongs there."""
    if name not in job.paths:
        raise LeanDiTError(
            f"{metric} needs {what}; nothing is downloaded unasked: fetch it and give its place, "
            f"--weights-from {name}=PATH"
        )
    path = job.paths[name].expanduser()
    if not path.exists():
        raise LeanDiTError(f"{path}: no such file or folder, for --weights-from {name}; correct the path")
    return path


def need_model_folder(folder: Path, kinds: Sequence[str] = ()) -> str:
    """Return the model_type of a folder of transformers; a LeanDiTError for what is none, or of another kind."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LeanDiTError(
            f"{folder}: no model folder of transformers ({path.name} cannot be read: {error}); give the folder with "
            "config.json and *.safetensors"
        ) from None
    kind = str(config.get("model_type")) if isinstance(config, dict) else "None"
    if kinds and kind not in kinds:
        raise LeanDiTError(f"{folder}: holds a model of type {kind!r}; what is needed is {' or '.join(kinds)}")
    return kind


def folder_hash(path: Path) -> str:
    """Return the SHA-256 of a file, or over names and hashes of all that decides a folder's model.

    That is weights, configs and tokenizer.
    """
    if path.is_file():
        return sha256_of(path, path.name)
    patterns = ("*.safetensors", "*.json", "*.txt", "*.model")
    digest = hashlib.sha256()
    for file in sorted({file for pattern in patterns for file in path.glob(pattern)}):
        digest.update(f"{file.name} {sha256_of(file, path.name)}\n".encode())
    return digest.hexdigest()
