"""CLIP through transformers: pictures and texts to points of length 1, for CMMD, for judges and for colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from leandit.evaluation.extractors.base import RESAMPLING, Extractor, Outputs, clip_planes
from leandit.evaluation.extractors.weights import folder_hash, need_model_folder
from leandit.text.loading import load_pretrained, load_tokenizer

REPOSITORY = "openai/clip-vit-large-patch14-336"


class Clip(Extractor):
    """A CLIP of transformers, frozen and in evaluation mode: both towers with a tokenizer, or that of pictures alone.

    Pictures are resized to the model's own size (bicubic, antialiased). `name` says layers, width, patch and size; the
    one of CMMD's paper is ViT-L/14 at 336 pixels.

    Reference: CMMD (arXiv 2401.09603), section 4.
    """

    def __init__(self, model: Any, tokenizer: Any, about: dict[str, Any], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._model = model.to(self.device).eval().requires_grad_(False)
        self._tokenizer = tokenizer
        # A picture tower alone has no config above its own.
        vision = getattr(model.config, "vision_config", model.config)
        self.resolution = int(vision.image_size)
        self.dim = int(model.config.projection_dim)
        self.name = _name(vision)  # type: ignore[misc]
        self._about = about

    @classmethod
    def from_folder(cls, folder: Path, device: torch.device | str = "cpu") -> Clip:
        """Load both towers from a folder as transformers saves it, safetensors only; else raise LeanDiTError."""
        need_model_folder(folder, ("clip",))
        model, tokenizer = load_pretrained("CLIPModel", folder), load_tokenizer(folder)
        return cls(model, tokenizer, {"weights_sha256": folder_hash(folder)}, device)

    @classmethod
    def of_pictures(cls, folder: Path, device: torch.device | str = "cpu") -> Clip:
        """Load the picture tower alone, which needs no tokenizer; `texts` and `logit_scale` are then missing."""
        need_model_folder(folder, ("clip", "clip_vision_model"))
        model: Any = load_pretrained("CLIPVisionModelWithProjection", folder)
        return cls(model, None, {"extractor": _name(model.config), "weights_sha256": folder_hash(folder)}, device)

    @property
    def logit_scale(self) -> float:
        """Return the learned factor that multiplied cosines in training, exp(logit_scale)."""
        return float(self._model.logit_scale.exp())

    @torch.inference_mode()
    def outputs(self, pictures: UInt8[Tensor, "samples height width channels"]) -> Outputs:
        """Return the embeddings of pictures, 0..255, each divided by its norm."""
        x = clip_planes(pictures, self.resolution, self.device)
        pooled = self._model.vision_model(pixel_values=x).pooler_output
        return Outputs(F.normalize(self._model.visual_projection(pooled).float(), dim=-1).cpu())

    @torch.inference_mode()
    def texts(self, texts: Sequence[str], batch_size: int = 64) -> Float[Tensor, "samples dim"]:
        """Return the embeddings of texts, cut to the model's length; each of length 1."""
        longest = self._model.config.text_config.max_position_embeddings
        points = []
        for start in range(0, len(texts), batch_size):
            encoded = self._tokenizer(
                list(texts[start : start + batch_size]),
                **{"padding": True, "truncation": True, "max_length": longest, "return_tensors": "pt"},
            ).to(self.device)
            pooled = self._model.text_model(encoded.input_ids, attention_mask=encoded.attention_mask).pooler_output
            points.append(F.normalize(self._model.text_projection(pooled).float(), dim=-1).cpu())
        # A clone can take part in a backward pass; what inference mode made cannot.
        return torch.cat(points).clone()

    def about(self) -> dict[str, Any]:
        """Return what the embeddings depend on, as JSON."""
        return {**self._about, "resolution": self.resolution, "resampling": RESAMPLING}


def _name(config: Any) -> str:
    large = (config.hidden_size, config.num_hidden_layers, config.patch_size) == (1024, 24, 14)
    size = "ViT-L/14" if large else f"ViT-{config.hidden_size}x{config.num_hidden_layers}/{config.patch_size}"
    return f"CLIP-{size}@{config.image_size}"
