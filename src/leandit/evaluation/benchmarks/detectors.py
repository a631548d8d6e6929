"""Objects in a picture: the interface of a detector, and the detectors of transformers, Mask2Former and DETR."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from leandit.evaluation.extractors.base import to_planes
from leandit.evaluation.extractors.weights import folder_hash, need_model_folder
from leandit.text.loading import load_pretrained

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detected:
    """One object: its class, the detector's confidence, and its place."""

    name: str
    score: float
    box: Box
    """Left, top, right, bottom in pixels."""
    mask: np.ndarray | None = None
    """Its pixels, bool [height, width]; None from a detector without masks."""


@runtime_checkable
class Detector(Protocol):
    """Finds objects in a picture."""

    @property
    def classes(self) -> frozenset[str]:
        """Return the classes that it can find."""

    def __call__(self, picture: UInt8[Tensor, "height width channels"]) -> list[Detected]:
        """Return the objects in a picture, 0..255, in any order and down to any score."""

    def about(self) -> dict[str, Any]:
        """Return what its answers depend on, as JSON."""


@runtime_checkable
class Colours(Protocol):
    """Says which of the benchmark's colours an object has."""

    def __call__(self, picture: UInt8[Tensor, "height width channels"], objects: list[Detected]) -> list[str]:
        """Return the colour of each object; all are of one class."""

    def about(self) -> dict[str, Any]:
        """Return what its answers depend on, as JSON."""


def confident(objects: list[Detected], threshold: float, most: int) -> Mapping[str, list[Detected]]:
    """Return for each class its objects above the threshold, the surest first, `most` of them at most."""
    by_class: dict[str, list[Detected]] = {}
    for found in sorted(objects, key=lambda found: -found.score):
        if found.score > threshold:
            by_class.setdefault(found.name, []).append(found)
    return {name: found[:most] for name, found in by_class.items()}


_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_SHORTEST_SIDE = 800
# Candidates per picture.
_MOST = 100
_CLASSES = {"mask2former": "Mask2FormerForUniversalSegmentation", "detr": "DetrForObjectDetection"}
# Names of some of COCO's classes: in checkpoints -> in GenEval.
_RENAMED = {
    "mouse": "computer mouse",
    "remote": "tv remote",
    "keyboard": "computer keyboard",
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}


class TransformersDetector:
    """A detector from a folder as transformers saves it, safetensors only: Mask2Former (with masks) or DETR."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self._kind = need_model_folder(folder, tuple(_CLASSES))
        self._device = torch.device(device)
        model: Any = load_pretrained(_CLASSES[self._kind], folder)
        self._model = model.to(self._device).eval().requires_grad_(False)
        labels = {int(number): str(name) for number, name in model.config.id2label.items()}
        self._names = {number: _RENAMED.get(name, name) for number, name in labels.items()}
        self._shortest = _shortest_side(folder)
        self._sha256 = folder_hash(folder)

    @property
    def classes(self) -> frozenset[str]:
        """Return the names that it knows, in GenEval's words."""
        return frozenset(self._names.values())

    @torch.inference_mode()
    def __call__(self, picture: UInt8[Tensor, "height width channels"]) -> list[Detected]:
        """Return up to a hundred objects, down to any score."""
        height, width = picture.shape[:2]
        out = self._model(pixel_values=self._pixels(picture))
        if self._kind == "detr":
            return self._from_boxes(out.logits[0].softmax(-1)[:, :-1], out.pred_boxes[0], height, width)
        masks = F.interpolate(out.masks_queries_logits, (height, width), mode="bilinear", align_corners=False)[0]
        return self._from_masks(out.class_queries_logits[0].softmax(-1)[:, :-1], masks)

    def about(self) -> dict[str, Any]:
        """Return what the detections depend on."""
        return {"detector": self._kind, "weights_sha256": self._sha256, "shortest_side": self._shortest}

    def _pixels(self, picture: Tensor) -> Float[Tensor, "1 3 height width"]:
        x = to_planes(picture[None], self._device)
        scale = self._shortest / min(x.shape[2:])
        size = tuple(round(side * scale) for side in x.shape[2:])
        x = F.interpolate(x, size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values, device=self._device).view(3, 1, 1) for values in (_MEAN, _STD))
        return (x / 255 - mean) / std

    def _from_boxes(self, scores: Tensor, boxes: Tensor, height: int, width: int) -> list[Detected]:
        """Turn centres and sizes, as parts of the picture, into objects: each query is one, of its likeliest class."""
        found = []
        for (score, label), (x, y, w, h) in zip(zip(*scores.max(-1), strict=True), boxes.tolist(), strict=True):
            box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            found.append(Detected(self._names[int(label)], float(score), box))
        return sorted(found, key=lambda one: -one.score)[:_MOST]

    def _from_masks(self, scores: Tensor, masks: Tensor) -> list[Detected]:
        """Turn class scores and mask logits of queries into objects: the likeliest pairs of query and class.

        An object's score is its class's, times the mean probability of the mask's pixels. An empty mask is no object.
        """
        classes = scores.shape[1]
        best = scores.flatten().topk(min(_MOST, scores.numel()))
        found = []
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            logits = masks[place // classes]
            inside = logits > 0
            if not inside.any():
                continue
            sure = float(logits.sigmoid()[inside].mean())
            rows, columns = (inside.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
            box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            found.append(Detected(self._names[place % classes], score * sure, box, inside.cpu().numpy()))
        return found


def _shortest_side(folder: Path) -> int:
    """Return the size that the checkpoint asks for; without one 800 pixels, the custom for COCO."""
    try:
        size = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))["size"]
        return int(size["shortest_edge"] if isinstance(size, dict) else size)
    except (OSError, ValueError, KeyError, TypeError):
        return _SHORTEST_SIDE
