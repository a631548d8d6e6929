"""Two small heads that bring pictures and captions into one space, on features of frozen encoders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from leandit.errors import LeanDiTError

BUNDLED = Path(__file__).parent / "heads.safetensors"


class Head(nn.Module):
    """Features to a point on the unit sphere: LayerNorm, two layers with GELU between them, length 1."""

    def __init__(self, into: int, hidden: int, out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(into)
        self.wide = nn.Linear(into, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, out)

    def forward(self, features: Float[Tensor, "batch into"]) -> Float[Tensor, "batch out"]:
        hidden = F.gelu(self.wide(self.dropout(self.norm(features))))
        return F.normalize(self.out(self.dropout(hidden)), dim=-1)


class AlignmentHeads(nn.Module):
    """A head for pictures and one for captions; the cosine of their points says how well the two fit."""

    def __init__(
        self, picture_dim: int = 1280, text_dim: int = 384, hidden: int = 512, dim: int = 256, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.picture = Head(picture_dim, hidden, dim, dropout)
        self.text = Head(text_dim, hidden, dim, dropout)

    @torch.no_grad()
    def similarity(
        self, pictures: Float[Tensor, "pictures picture_dim"], texts: Float[Tensor, "texts text_dim"]
    ) -> Float[Tensor, "pictures texts"]:
        """Return the cosine of every picture with every caption, from their encoders' features."""
        return self.picture(pictures) @ self.text(texts).T


def save_heads(heads: AlignmentHeads, path: Path, about: dict[str, Any]) -> None:
    """Write the heads as float16 safetensors, with what they were fitted on and for as metadata."""
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in heads.state_dict().items()}
    save_file(tensors, path, {"about": json.dumps(about, sort_keys=True)})


def load_heads(path: Path = BUNDLED) -> tuple[AlignmentHeads, dict[str, Any]]:
    """Return the heads in evaluation mode, and what they are made of: the file's metadata and its SHA-256."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        heads = _empty_like(tensors)
        heads.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise LeanDiTError(f"{path}: the alignment heads cannot be read ({error}); reinstall leandit") from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return heads.eval().requires_grad_(False), {**about, "heads_sha256": digest}


def _empty_like(tensors: dict[str, Tensor]) -> AlignmentHeads:
    (hidden, picture_dim), text_dim = tensors["picture.wide.weight"].shape, tensors["text.wide.weight"].shape[1]
    return AlignmentHeads(picture_dim, text_dim, hidden, len(tensors["picture.out.weight"]))
