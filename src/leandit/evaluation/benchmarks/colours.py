"""The colour of an object, by CLIP."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from leandit.evaluation.benchmarks.detectors import Detected
from leandit.evaluation.extractors.clip import Clip

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
_TEMPLATES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")
# The colour of the surroundings of an object whose mask is known, #999.
_GREY = 153


class ClipColours:
    """The colour whose three sentences are nearest to the object cut out of the picture.

    Reference: GenEval (arXiv 2310.11513), section 3: CLIP ViT-L/14, zero-shot over ten colours.
    """

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._known: dict[str, Tensor] = {}

    def __call__(self, picture: UInt8[Tensor, "height width channels"], objects: list[Detected]) -> list[str]:
        """Return the colour of each object."""
        return [COLOURS[int(self._likeness(picture, found).argmax())] for found in objects]

    def about(self) -> dict[str, Any]:
        """Return what the colours depend on."""
        return {"colours": "CLIP, zero-shot", **self._clip.about()}

    def _likeness(self, picture: Tensor, found: Detected) -> Float[Tensor, " colours"]:
        return self._sentences(found.name) @ self._clip(cut_out(picture, found)[None])[0]

    def _sentences(self, name: str) -> Float[Tensor, "colours dim"]:
        """Return a point per colour: the mean over the templates, of length 1."""
        if name not in self._known:
            texts = [template.format(colour=colour, name=name) for colour in COLOURS for template in _TEMPLATES]
            points = self._clip.texts(texts).view(len(COLOURS), len(_TEMPLATES), -1)
            self._known[name] = F.normalize(points.mean(1), dim=-1)
        return self._known[name]


def cut_out(picture: UInt8[Tensor, "height width channels"], found: Detected) -> UInt8[Tensor, "side side channels"]:
    """Return the middle square of an object's box; if the mask is known, everything but the object is grey."""
    if found.mask is not None:
        mask = torch.from_numpy(found.mask).to(picture.device)
        picture = torch.where(mask[..., None], picture, torch.full_like(picture, _GREY))
    height, width = picture.shape[:2]
    left, right = _within(found.box[0], found.box[2], width)
    top, bottom = _within(found.box[1], found.box[3], height)
    side = min(right - left, bottom - top)
    left, top = left + (right - left - side) // 2, top + (bottom - top - side) // 2
    return picture[top : top + side, left : left + side]


def _within(first: float, last: float, size: int) -> tuple[int, int]:
    """Return a range of at least one pixel inside the picture."""
    start = min(max(round(first), 0), size - 1)
    return start, max(min(round(last), size), start + 1)
