"""Two small heads that map pictures and captions into one space, and the frozen encoders whose features they read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors import EffNetLite0
from leandit.evaluation.extractors.base import resize
from leandit.text import TextConfig, build_text_encoder

# The size of the bundled emoji. Other pictures are resized to it first, since the heads were fitted on this size.
PICTURE_SIZE = 32
RESOLUTION = 96
# The maps of this many pictures fit into a CPU's cache.
_BATCH = 8


class FrozenEncoders:
    """Features of pictures and captions; LeanDiTError with pip's command if weights are not installed."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._pictures = EffNetLite0(RESOLUTION, device)
        self._texts = build_text_encoder(TextConfig(batch_size=64), device)

    def pictures(self, pictures: UInt8[Tensor, "samples height width channels"]) -> Float[Tensor, "samples 1280"]:
        """Return the pooled features of pictures, which are first resized to 32 x 32."""
        # Fitting needs a clone: tensors of inference mode cannot take part in a backward pass.
        return torch.cat([self._pictures(at_32(part), _BATCH) for part in pictures.split(1024)]).clone()

    def texts(self, captions: Sequence[str]) -> Float[Tensor, "samples 384"]:
        """Return the mean-pooled features of captions."""
        # Captions of similar length are encoded together: less padding.
        order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
        features = self._texts.encode([captions[i] for i in order]).pooled
        return features[torch.tensor(order).argsort()].clone()

    def about(self) -> dict[str, Any]:
        """Return what the features depend on."""
        return {
            "pictures": {**self._pictures.about(), "first_resized_to": PICTURE_SIZE},
            "captions": {"encoder": "all-MiniLM-L6-v2", "pooled": "mean", "fingerprint": self._texts.fingerprint},
        }


def at_32(
    pictures: UInt8[Tensor, "samples height width channels"],
) -> UInt8[Tensor, "samples 32 32 channels"]:
    """Return the pictures at the size of the bundled emoji, bicubic and antialiased."""
    if tuple(pictures.shape[1:3]) == (PICTURE_SIZE, PICTURE_SIZE):
        return pictures
    small = resize(pictures.permute(0, 3, 1, 2).float(), PICTURE_SIZE)
    return small.round().byte().permute(0, 2, 3, 1)


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
    """A head for pictures and one for captions; the cosine of their points says how well they fit."""

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
