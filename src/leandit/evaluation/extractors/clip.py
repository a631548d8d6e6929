"""CLIP's picture tower through transformers: the extractor of CMMD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from leandit.evaluation.extractors.base import RESAMPLING, Extractor, Outputs, clip_planes
from leandit.evaluation.extractors.folder import folder_hash, need_model_folder
from leandit.text.loading import load_pretrained

REPOSITORY = "openai/clip-vit-large-patch14-336"
_KINDS = ("clip", "clip_vision_model")


class ClipVision(Extractor):
    """Embeddings of length 1 of pictures resized to the model's own size (bicubic, antialiased).

    `folder` is a model as transformers saves it, with safetensors weights. Canonical is ViT-L/14 at 336 pixels; the
    name says the layers, width and size of what is there.

    Reference: CMMD (arXiv 2401.09603), section 4.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        need_model_folder(folder, _KINDS)
        network: Any = load_pretrained("CLIPVisionModelWithProjection", folder)
        self._network = network.to(self.device).eval().requires_grad_(False)
        config = network.config
        self.resolution = int(config.image_size)
        self._sha256 = folder_hash(folder)
        self.name = _name(config)  # type: ignore[misc]

    @torch.inference_mode()
    def outputs(self, pictures: UInt8[Tensor, "samples height width channels"]) -> Outputs:
        """Return the projected embeddings, each divided by its norm."""
        x = clip_planes(pictures, self.resolution, self.device)
        embeds: Tensor = self._network(pixel_values=x).image_embeds
        return Outputs(F.normalize(embeds.float(), dim=-1).cpu())

    def about(self) -> dict[str, Any]:
        """Return what the features depend on, as JSON."""
        return {
            "extractor": self.name,
            "weights_sha256": self._sha256,
            "resolution": self.resolution,
            "resampling": RESAMPLING,
        }


def _name(config: Any) -> str:
    large = (config.hidden_size, config.num_hidden_layers, config.patch_size) == (1024, 24, 14)
    size = "ViT-L/14" if large else f"ViT-{config.hidden_size}x{config.num_hidden_layers}/{config.patch_size}"
    return f"CLIP-{size}@{config.image_size}"
