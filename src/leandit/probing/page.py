"""report.html: one file that contains the numbers, the pictures and plotly, and needs no network."""

from __future__ import annotations

import base64
import functools
import gzip
import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.sampling import data_uri, to_image

HOW_TO_GET_THE_PAGE = "for the report as a page, pip install 'leandit[report]' (plotly) and run `leandit probe` again"
_SCRIPTS = ("maps.js", "plots.js", "start.js")
# Pictures up to this side stay exact. Larger pictures are reduced in size and stored as JPEG.
_EXACT_SIDE = 64
_MOST_SIDE = 256


def can_write_page() -> bool:
    """Return whether plotly is installed. The page contains its script."""
    return find_spec("plotly") is not None


def write_page(
    reports: Sequence[dict[str, Any]],
    pictures: Sequence[UInt8[Tensor, "_ _ _ _"] | None],
    path: Path,
) -> None:
    """Write the page of one report, or of two side by side. `pictures` are [N, H, W, C] for each report, or None.

    The page contains plotly's script and the numbers, compressed with gzip; the browser decompresses them. This takes
    2 MB instead of 5. Raises LeanDiTError if plotly is not installed.
    """
    if not can_write_page():
        raise LeanDiTError(f"plotly is not installed: {HOW_TO_GET_THE_PAGE}")
    payload = {"reports": list(reports), "images": [_images(each) for each in pictures]}
    parts = {
        "TITLE": html.escape("Routing of " + " and ".join(str(report["run"]["folder"]) for report in reports)),
        "STYLE": _part("page.css"),
        "SCRIPT": "\n".join(_part(name) for name in _SCRIPTS),
        "PLOTLY": _plotly(),
        "PAYLOAD": _packed(json.dumps(payload, allow_nan=False)),
    }
    # Replace all placeholders in one pass, so that inserted text is not searched for placeholders.
    page = re.sub(r"__([A-Z]+)__", lambda place: parts[place[1]], _part("page.html"))
    path.write_text(page, encoding="utf-8")


def _part(name: str) -> str:
    return resources.files("leandit.probing").joinpath("page", name).read_text(encoding="utf-8")


@functools.cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return _packed(get_plotlyjs())


def _packed(text: str) -> str:
    # No time stamp: equal reports give equal files.
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _images(pictures: UInt8[Tensor, "batch height width channels"] | None) -> list[dict[str, Any]]:
    """Return the data URI of each picture, and its longer side. Empty for a run on latents."""
    if pictures is None:
        return []
    return [{"side": max(picture.shape[:2]), "source": _source(to_image(picture))} for picture in pictures]


def _source(image: Image.Image) -> str:
    if max(image.size) <= _EXACT_SIDE:
        return data_uri(image)
    image.thumbnail((_MOST_SIDE, _MOST_SIDE))
    return data_uri(image, "jpeg", quality=85)
