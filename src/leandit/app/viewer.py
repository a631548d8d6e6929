"""The picture and its compute map as HTML: two strips of frames and a slider, which works in the browser.

Pictures are data URIs: nothing is written on the server and nothing is fetched. All text in the HTML comes from this
module and never from a visitor.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

import numpy as np
import torch

from leandit.app.drawing import Drawing, Frame
from leandit.sampling import data_uri, to_image

# Largest number of pixels of a strip. If there are too many frames, evenly spaced ones are shown.
_MAX_PIXELS = 2**21
_MAP = "inferno"

# Called by the slider in a drawing.
SCRIPT = """
function leanditShow(slider) {
  const viewer = slider.closest(".ld-viewer");
  viewer.style.setProperty("--frame", slider.value);
  viewer.querySelector("output").textContent = JSON.parse(viewer.dataset.labels)[slider.value];
}
"""


def empty_view(experts: bool) -> str:
    """Return the viewer before the first drawing."""
    return _view([_blank()], [_blank()] if experts else [], ["Nothing drawn yet"], None)


def frame_view(frame: Frame, done: int, total: int, k: int | float | None) -> str:
    """Return the viewer during a drawing: it shows the newest frame."""
    maps = [] if frame.experts is None or k is None else [_colours(frame.experts, k)]
    label = f"drawing: {done} of {total} · {_label(frame)}"
    return _view([frame.picture.numpy()], maps, [label], k, progress=done / total)


def drawing_view(drawing: Drawing, k: int | float | None) -> str:
    """Return the viewer of a finished picture: all frames, and at the end the picture with the mean map."""
    height, width = drawing.picture.shape[:2]
    frames = _spread(drawing.frames, max(1, _MAX_PIXELS // (height * width) - 1))
    pictures = [frame.picture.numpy() for frame in frames] + [drawing.picture.numpy()]
    labels = [_label(frame) for frame in frames]
    found = [frame.experts for frame in drawing.frames if frame.experts is not None]
    if k is None or not found:
        return _view(pictures, [], [*labels, "finished"], None)
    mean = np.mean(found, axis=0)
    maps = [_colours(frame.experts, k) for frame in frames if frame.experts is not None]
    flops = "" if drawing.flops is None else f" · {drawing.flops / 1e9:.2g} GFLOPs"
    last = f"finished · {mean.mean():.2f} experts per token{flops}"
    return _view(pictures, [*maps, _colours(mean, k)], [*labels, last], k)


def _label(frame: Frame) -> str:
    experts = "" if frame.experts is None else f" · {frame.experts.mean():.2f} experts per token"
    return f"t = {frame.t:.2f}{experts}"


def _spread(frames: Sequence[Frame], most: int) -> list[Frame]:
    if len(frames) <= most:
        return [*frames]
    return [frames[round(index)] for index in np.linspace(0, len(frames) - 1, most)]


def _view(
    pictures: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    labels: Sequence[str],
    k: int | float | None,
    progress: float | None = None,
) -> str:
    last = len(labels) - 1
    height, width = pictures[0].shape[:2]
    panes = [_pane("picture", "picture", pictures, "")]
    if maps:
        panes.append(_pane("map", "compute map", maps, _legend(k)))
    control = (
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="time" oninput="leanditShow(this)">'
        if last
        else f'<div class="ld-progress"><div style="width:{100 * (progress or 0):.1f}%"></div></div>'
    )
    return (
        f'<div class="ld-viewer" data-labels="{html.escape(json.dumps(labels))}" '
        f'style="--ratio:{width}/{height};--last:{max(last, 1)};--frames:{last + 1};--frame:{last}">'
        f'<div class="ld-panes">{"".join(panes)}</div>'
        f'<div class="ld-time">{control}<div class="ld-ends"><span>{"noise" if last else ""}</span>'
        f"<output>{html.escape(labels[-1])}</output><span>{'picture' if last else ''}</span></div></div></div>"
    )


def _pane(kind: str, name: str, frames: Sequence[np.ndarray], legend: str) -> str:
    strip = to_image(torch.from_numpy(np.concatenate(frames, axis=1)))
    return (
        f'<figure class="ld-{kind}"><div class="ld-strip" role="img" aria-label="{name}" '
        f'style="background-image:url({data_uri(strip)})"></div>'
        f"<figcaption><span>{name}</span>{legend}</figcaption></figure>"
    )


def _legend(k: int | float | None) -> str:
    if k is None:
        return ""
    stops = ",".join(f"rgb({r},{g},{b})" for r, g, b in _palette(np.linspace(0, 1, 9)))
    return (
        f'<span class="ld-legend">0<i style="background:linear-gradient(90deg,{stops})"></i>{2 * k:g}+ experts</span>'
    )


def _blank() -> np.ndarray:
    return np.zeros((1, 1, 4), np.uint8)


def _colours(experts: np.ndarray, k: int | float) -> np.ndarray:
    """Return colours (height, width, 3) for 0 to 2 k experts. The scale is fixed, so that drawings can be compared."""
    return _palette(np.clip(experts / (2 * k), 0, 1))


def _palette(values: np.ndarray) -> np.ndarray:
    import matplotlib

    return matplotlib.colormaps[_MAP](values, bytes=True)[..., :3]
