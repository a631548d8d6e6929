"""Weights as others publish them: files that are read as tensors alone, never as programs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors.torch import load_file
from torch import Tensor

from leandit.errors import LeanDiTError


def sha256_of(path: Path, what: str) -> str:
    """Return the SHA-256 of a file; a LeanDiTError that names `what` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise LeanDiTError(f"{path}: no such file, for the weights of {what}; correct the path") from None
    except OSError as error:
        raise LeanDiTError(f"{path}: the weights of {what} cannot be read: {error.strerror or error}") from None


def read_verified(path: Path, what: str, expected: str) -> dict[str, Tensor]:
    """Return the tensors of a .pth file whose SHA-256 begins with `expected`; a LeanDiTError for any other.

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
    """Return the tensors of a file by name, on the CPU; a LeanDiTError that names `what` for a file without any.

    The file is a .safetensors, or one of torch.save that holds a state dict or has it below "state_dict". The latter is
    a pickle, from which nothing but tensors is taken (`weights_only`).
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
            f"{path}: holds no weights by name, which those of {what} are; give the file that its authors publish"
        )
    # Without the metadata of a state dict: names and tensors are all that is taken.
    return dict(tensors)


def _is_state(stored: Any) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(stored, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in stored.items())


def fetch(url: str, name: str, prefix: str) -> Path:
    """Return torch's own copy of a published file, downloading it where there is none; only called when asked to."""
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
