"""Both towers of CLIP through transformers: pictures and texts to points of length 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from leandit.evaluation.extractors.base import RESAMPLING, clip_planes
from leandit.evaluation.extractors.folder import folder_hash, need_model_folder
from leandit.text.loading import load_pretrained, load_tokenizer


class Clip:
    """A CLIPModel of transformers and its tokenizer, frozen and in evaluation mode."""

    def __init__(self, model: Any, tokenizer: Any, about: dict[str, Any], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._model = model.to(self.device).eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self.resolution = int(model.config.vision_config.image_size)
        self.dim = int(model.config.projection_dim)
        self._about = about

    @classmethod
    def from_folder(cls, folder: Path, device: torch.device | str = "cpu") -> Clip:
        """Load a folder as transformers saves it, safetensors only; a LeanDiTError where it is none."""
        need_model_folder(folder, ("clip",))
        model, tokenizer = load_pretrained("CLIPModel", folder), load_tokenizer(folder)
        return cls(model, tokenizer, {"weights_sha256": folder_hash(folder)}, device)

    @property
    def logit_scale(self) -> float:
        """Return the learned factor that its training multiplied cosines by, exp(logit_scale)."""
        return float(self._model.logit_scale.exp())

    @torch.inference_mode()
    def pictures(
        self, pictures: UInt8[Tensor, "samples height width channels"], batch_size: int = 64
    ) -> Float[Tensor, "samples dim"]:
        """Return the embeddings of pictures, 0..255, resized to the model's resolution; each of length 1."""
        return torch.cat([self._embed_pictures(batch) for batch in pictures.split(batch_size)]).clone()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str], batch_size: int = 64) -> Float[Tensor, "samples dim"]:
        """Return the embeddings of texts, cut to the model's length; each of length 1."""
        batches = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
        return torch.cat([self._embed_texts(batch) for batch in batches]).clone()

    def about(self) -> dict[str, Any]:
        """Return what the embeddings depend on, as JSON."""
        return {**self._about, "resolution": self.resolution, "resampling": RESAMPLING}

    def _embed_pictures(self, pictures: Tensor) -> Tensor:
        x = clip_planes(pictures, self.resolution, self.device)
        pooled = self._model.vision_model(pixel_values=x).pooler_output
        return F.normalize(self._model.visual_projection(pooled).float(), dim=-1).cpu()

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        longest = self._model.config.text_config.max_position_embeddings
        encoded = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        ).to(self.device)
        pooled = self._model.text_model(encoded.input_ids, attention_mask=encoded.attention_mask).pooler_output
        return F.normalize(self._model.text_projection(pooled).float(), dim=-1).cpu()
