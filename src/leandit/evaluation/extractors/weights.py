"""Weights that others publish or the user brings: where they are, what they are, and their tensors, never programs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors.torch import load_file
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.evaluation.metric import Job


def sha256_of(path: Path, what: str) -> str:
    """Return the SHA-256 of a file; raise LeanDiTError, which names `what`, if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise LeanDiTError(f"{path}: no such file, for the weights of {what}; correct the path") from None
    except OSError as error:
        raise LeanDiTError(f"{path}: the weights of {what} cannot be read: {error.strerror or error}") from None


def read_verified(path: Path, what: str, expected: str) -> dict[str, Tensor]:
    """Return the tensors of a .pth file whose SHA-256 begins with `expected`; raise LeanDiTError for any other.

    Such a file is a pickle, so it is opened only if its hash is the known one, and then by `read_tensors`.
    """
    found = sha256_of(path, what)
    if not found.startswith(expected):
        raise LeanDiTError(
            f"{path}: not the published weights of {what}: SHA-256 {found[:16]}..., expected {expected[:16]}...; "
            "the file is damaged or another one, fetch it again"
        )
    return read_tensors(path, what)


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU; raise LeanDiTError, which names `what`, if it has none.

    The file is a .safetensors, or one of torch.save that holds a state dict or has one under "state_dict". The latter
    is a pickle, of which only tensors are read (`weights_only`).
    """
    try:
        safe = path.suffix == ".safetensors"
        stored = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file makes torch raise a dozen kinds of error, KeyError and AttributeError too.
    except Exception as error:
        reason = str(error).split("\n")[0][:200]
        raise LeanDiTError(f"{path}: the weights of {what} cannot be read: {reason}; fetch them again") from None
    tensors = stored.get("state_dict", stored) if isinstance(stored, dict) else stored
    if not _is_state(tensors):
        raise LeanDiTError(
            f"{path}: holds no weights by name, as {what} needs them; give the file that its authors publish"
        )
    # Only names and tensors, without the metadata of a state dict.
    return dict(tensors)


def _is_state(stored: Any) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(stored, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in stored.items())


def fetch(url: str, name: str, prefix: str) -> Path:
    """Return torch's copy of a published file; download it if there is none. Called only if the user allows it."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix)
    except (OSError, RuntimeError) as error:
        raise LeanDiTError(
            f"{url}: cannot be downloaded to {path}: {error}; fetch it by other means and name it with --weights-from"
        ) from None
    return path


def named_path(job: Job, name: str, metric: str, what: str) -> Path:
    """Return the path that --weights-from gives for `name`; else raise LeanDiTError, which says what to give."""
    if name not in job.paths:
        raise LeanDiTError(
            f"{metric} needs {what}; nothing is downloaded by itself: fetch it and give its path, "
            f"--weights-from {name}=PATH"
        )
    path = job.paths[name].expanduser()
    if not path.exists():
        raise LeanDiTError(f"{path}: no such file or folder, for --weights-from {name}; correct the path")
    return path


def need_model_folder(folder: Path, kinds: Sequence[str] = ()) -> str:
    """Return the model_type of a folder of transformers; raise LeanDiTError for another folder or kind."""
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
        raise LeanDiTError(f"{folder}: holds a model of type {kind!r}; the type must be {' or '.join(kinds)}")
    return kind


def folder_hash(path: Path) -> str:
    """Return the SHA-256 of a file, or over the names and hashes of the files that decide a folder's model.

    These are weights, configs and tokenizer.
    """
    if path.is_file():
        return sha256_of(path, path.name)
    patterns = ("*.safetensors", "*.json", "*.txt", "*.model")
    digest = hashlib.sha256()
    for file in sorted({file for pattern in patterns for file in path.glob(pattern)}):
        digest.update(f"{file.name} {sha256_of(file, path.name)}\n".encode())
    return digest.hexdigest()
