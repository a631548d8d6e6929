"""CLIP's picture tower through transformers: the extractor of CMMD."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.evaluate.extractors.base import Extractor, Outputs, to_planes
from leandit.evaluate.extractors.weights import sha256_of

REPOSITORY = "openai/clip-vit-large-patch14-336"
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipVision(Extractor):
    """Embeddings of length 1 of pictures resized to the model's own size (bicubic, antialiased).

    `folder` is a model as transformers saves it, with safetensors weights. Canonical is ViT-L/14 at 336 pixels; the
    name says the layers, width and size of what is there.

    Reference: CMMD (arXiv 2401.09603), section 4.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._network = _load(folder).to(self.device).eval().requires_grad_(False)
        config = self._network.config
        self.resolution = int(config.image_size)
        self._sha256 = _hash_of(folder)
        self.name = _name(config)  # type: ignore[misc]

    @torch.inference_mode()
    def outputs(self, pictures: UInt8[Tensor, "samples height width channels"]) -> Outputs:
        """Return the projected embeddings, each divided by its norm."""
        x = to_planes(pictures, self.device)
        size = (self.resolution, self.resolution)
        if tuple(x.shape[2:]) != size:
            x = F.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 255)
        return Outputs(F.normalize(self._embed(x / 255), dim=-1).cpu())

    def _embed(self, x: Float[Tensor, "samples 3 height width"]) -> Float[Tensor, "samples dim"]:
        mean, std = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in (_MEAN, _STD))
        embeds: Tensor = self._network(pixel_values=(x - mean) / std).image_embeds
        return embeds.float()

    def about(self) -> dict[str, Any]:
        """Return what the features depend on, as JSON."""
        return {
            "extractor": self.name,
            "weights_sha256": self._sha256,
            "resolution": self.resolution,
            "resampling": "bicubic, antialiased",
        }


def _name(config: Any) -> str:
    large = (config.hidden_size, config.num_hidden_layers, config.patch_size) == (1024, 24, 14)
    size = "ViT-L/14" if large else f"ViT-{config.hidden_size}x{config.num_hidden_layers}/{config.patch_size}"
    return f"CLIP-{size}@{config.image_size}"


def _load(folder: Path) -> Any:
    try:
        from transformers import CLIPVisionModelWithProjection
    except ImportError:
        raise LeanDiTError("CLIP needs transformers: pip install 'leandit[text]'") from None
    if not (folder / "config.json").is_file():
        raise LeanDiTError(
            f"{folder}: no CLIP model in the form of transformers, which has config.json and *.safetensors; "
            f"save one of {REPOSITORY} with save_pretrained"
        )
    try:
        # Only from the folder, and never a pickle.
        return CLIPVisionModelWithProjection.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, json.JSONDecodeError) as error:
        raise LeanDiTError(f"{folder}: the CLIP model cannot be read: {error}") from None


def _hash_of(folder: Path) -> str:
    """Hash the names and hashes of the weight files, of which a large model has several."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name} {sha256_of(path, 'CLIP')}\n".encode())
    return digest.hexdigest()
