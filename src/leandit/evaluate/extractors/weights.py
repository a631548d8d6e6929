"""Weights of extractors: files of others, read only after their hash was compared and never as programs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeGuard

import torch
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

    Such a file is a pickle: only tensors are taken out of it (`weights_only`), and only if the hash is the known one.
    """
    found = sha256_of(path, what)
    if not found.startswith(expected):
        raise LeanDiTError(
            f"{path}: not the published weights of {what}: SHA-256 {found[:16]}..., expected {expected[:16]}...; "
            "the file is damaged or another one, fetch it again"
        )
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file makes torch raise a dozen kinds of error.
    except Exception as error:
        reason = str(error).split("\n")[0][:200]
        raise LeanDiTError(f"{path}: the weights of {what} cannot be read: {reason}") from None
    if not is_state(tensors):
        raise LeanDiTError(f"{path}: holds no weights by name, which those of {what} are; fetch the file again")
    return dict(tensors)


def is_state(stored: Any) -> TypeGuard[dict[str, Tensor]]:
    """Return whether what a file held are tensors by name."""
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
