"""Whether experts go to the parts of a picture that have detail: measured on real pictures, noised at several times.

Legend: N times, Y layers, B pictures, L tokens of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from leandit.data import Loader, Source, build_source
from leandit.errors import NotFoundError
from leandit.probing.recorder import ComputeRecorder
from leandit.random import Stream, normal
from leandit.run.conditioner import Conditioner
from leandit.run.held_out import condition_of
from leandit.sampling import LoadedRun
from leandit.sampling.generate import Progress

TIMES = (0.9, 0.7, 0.5, 0.3, 0.1)
"""The times at which pictures are noised, from noise to picture."""
_BATCH = 16


@dataclass(frozen=True)
class ContentTrace:
    """Experts, local contrast and the model's squared error for each token of real pictures."""

    times: tuple[float, ...]
    layers: tuple[str, ...]
    experts: Float[Tensor, "times layers pictures tokens"]
    contrast: Float[Tensor, "pictures tokens"]
    error: Float[Tensor, "times pictures tokens"]


def local_contrast(x: Float[Tensor, "batch channels height width"], patch_size: int) -> Float[Tensor, "batch tokens"]:
    """Return the standard deviation of x around each token: over its patch and one pixel beyond, mean over channels.

    The border repeats outside the picture. A token of one colour, with neighbours of the same colour, has 0.
    """
    window, x = patch_size + 2, x.double()
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    mean, square = (F.avg_pool2d(value, window, stride=patch_size) for value in (padded, padded.square()))
    return (square - mean.square()).clamp(min=0).sqrt().mean(1).flatten(1).float()


def find_pictures(run: LoadedRun) -> Source | None:
    """Return the run's held-out pictures, or those that it learned; None if they are not on this machine."""
    try:
        return build_source(run.config.data.validation or run.config.data.source)
    except NotFoundError:
        return None


@torch.no_grad()
def record_content(
    run: LoadedRun, source: Source, count: int = 64, times: Sequence[float] = TIMES, progress: Progress | None = None
) -> ContentTrace:
    """Noise `count` pictures of `source` at each time, and record what the run's model does with each token.

    A picture has the same noise at all times; no condition is dropped. The error is that of the velocity, which at one
    time is proportional to that of the estimated picture. `progress(done, total)` counts passes of the model.
    """
    loader = Loader(source, run.config.data.replace(flip=0.0, num_threads=0), min(_BATCH, count), run.config.seed)
    conditioner = Conditioner(run.text, run.device)
    batches = -(-count // _BATCH)
    experts: list[Tensor] = []
    errors: list[Tensor] = []
    contrasts: list[Tensor] = []
    names: tuple[str, ...] = ()
    for number in range(batches):
        batch = loader.batch(number)
        cond = condition_of(run.config, conditioner, batch)
        x0 = run.codec.encode(batch.images.to(run.device))
        eps = torch.from_numpy(normal(run.config.seed, Stream.VALIDATION, batch.indices, tuple(x0.shape[1:]))).to(x0)
        with ComputeRecorder(run.model, len(x0)) as recorder:
            for done, time in enumerate(times, start=number * len(times) + 1):
                t = x0.new_full((len(x0),), time)
                x_t = run.objective.path.mix(x0, eps, t)
                found = run.objective.denoised(run.predict(x_t, t, cond), x_t, t).velocity
                wrong = (found - run.objective.path.velocity(x0, eps, t)).square()
                errors.append(run.model.patchify(wrong).mean(-1).cpu())
                if progress is not None:
                    progress(done, batches * len(times))
        trace = recorder.trace()
        experts.append(trace.experts)
        names = trace.layers
        contrasts.append(local_contrast(x0, run.model.config.patch_size).cpu())
    error = torch.stack([torch.cat(errors[place :: len(times)]) for place in range(len(times))])
    return ContentTrace(
        tuple(times), names, torch.cat(experts, 2)[:, :, :count], torch.cat(contrasts)[:count], error[:, :count]
    )


def content_report(trace: ContentTrace) -> dict[str, Any]:
    """Return the `allocation` of a report.

    `detail_over_flat`: experts on the quarter of each picture's tokens with most local contrast, over those on the
    quarter with least, each a mean over layers, times and pictures; above 1, detail gets more. `by_layer`: the same for
    each layer. `over_time`: experts per token at each of `times`. `error_correlation`: Pearson's correlation over the
    tokens of a picture, of the experts in all layers with the model's squared error, mean over pictures and times. A
    value is None if nothing varies.
    """
    quarter = max(1, trace.contrast.shape[1] // 4)
    order = trace.contrast.argsort(dim=1, stable=True)
    index = order.expand(*trace.experts.shape[:2], -1, -1)
    ranked = trace.experts.gather(-1, index)
    flat, detail = ranked[..., :quarter].mean((0, 2, 3)), ranked[..., -quarter:].mean((0, 2, 3))
    return {
        "pictures": len(trace.contrast),
        "times": list(trace.times),
        "detail_over_flat": _ratio(detail.mean(), flat.mean()),
        "by_layer": [_ratio(*pair) for pair in zip(detail, flat, strict=True)],
        "over_time": trace.experts.mean((1, 2, 3)).tolist(),
        "error_correlation": _correlation(trace.experts.sum(1).numpy(), trace.error.numpy()),
    }


def _ratio(one: Tensor, other: Tensor) -> float | None:
    return float(one / other) if float(other) > 0 else None


def _correlation(one: Float[np.ndarray, "*rows tokens"], other: Float[np.ndarray, "*rows tokens"]) -> float | None:
    """Return the mean over rows of Pearson's correlation; rows in which one side does not vary are left out."""
    a, b = (value - value.mean(-1, keepdims=True) for value in (one.astype(np.float64), other.astype(np.float64)))
    norms = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    varies = norms > 0
    return float(((a * b).sum(-1)[varies] / norms[varies]).mean()) if varies.any() else None
