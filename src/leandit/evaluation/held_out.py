"""The loss on held-out pictures by timestep: at which times a model is good, and whether it memorised its data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from leandit.data import Batch, Loader, Source, build_source
from leandit.diffusion import DDPM, Noised, Objective
from leandit.errors import LeanDiTError, NotFoundError
from leandit.evaluation.metric import Drawn, Job, Measurement, Metric
from leandit.evaluation.plans import same_classes
from leandit.evaluation.reference import FittedSource, PixelHash
from leandit.random import Stream, uniform
from leandit.run.conditioner import Conditioner
from leandit.run.held_out import TIME_STEP, draw_held_out, loss_per_picture
from leandit.sampling import LoadedRun

BINS = 10
_FIRST_BIN_STEP = TIME_STEP + 1


class ValidationLossMetric(Metric):
    """The objective's loss on `data.validation`, or on a --reference other than the training data.

    `validation_loss` takes one time per picture from the distribution of training times, as the value of that name in
    training does (there with the raw weights). `validation_loss t=0.1-0.2` and so on take each picture once at a time
    that is uniform in this tenth of the path. Auxiliary losses are left out. Noise and times belong to the picture, so
    two values differ only by the weights.
    """

    name = "validation_loss"

    def plan(self, job: Job) -> None:
        """Check the pictures and their classes; nothing is drawn."""
        _check_classes(job.run, _held_out(job))

    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        """Return the losses."""
        source = _held_out(job)
        _check_classes(job.run, source)
        config = job.run.config
        size = min(job.batch_size, len(source))
        loader = Loader(source, config.data.replace(flip=0.0), size, config.seed)
        sums = torch.zeros(BINS + 1, dtype=torch.float64)
        pixels, texts = PixelHash(), hashlib.sha256()
        for batch, count in _batches(loader, len(source), size):
            pixels.update(_as_uint8(batch.images[:count]))
            texts.update(json.dumps((batch.texts or ())[:count]).encode())
            sums += _losses(job.run, batch)[:, :count].double().sum(1)
        means = (sums / len(source)).tolist()
        names = [f"{self.name} t={n / BINS:.1f}-{(n + 1) / BINS:.1f}" for n in range(BINS)]
        held_out = {"pictures": len(source), "pixels_sha256": pixels.value()}
        if config.text is not None:
            held_out["texts_sha256"] = texts.hexdigest()
        facts = {"objective": config.objective.model_dump(mode="json"), "seed": config.seed, "held_out": held_out}
        return Measurement(dict(zip([self.name, *names], means, strict=True)), facts)


def _held_out(job: Job) -> Source:
    """Return pictures that training never showed; raise LeanDiTError if none are named."""
    data = job.run.config.data
    if not _is_training_data(job):
        return job.reference
    if data.validation is None:
        raise LeanDiTError(
            "validation_loss needs pictures that training never showed, and the run has no data.validation; name some "
            "with --reference"
        )
    return FittedSource(
        build_source(data.validation, "data.validation"), data.size, data.channels, "data.validation", True
    )


def _check_classes(run: LoadedRun, source: Source) -> None:
    """Raise LeanDiTError if the labels of the held-out pictures are not those that the model learned."""
    if run.config.text is None and run.model.config.num_classes and not same_classes(run, source):
        learned, held_out = (", ".join(names) or "none" for names in (run.class_names, source.class_names))
        raise LeanDiTError(
            f"validation_loss tells the model the classes of the held-out pictures, which are not those that it "
            f"learned: {held_out[:200]} / {learned[:200]}; name pictures of the run's classes, in its order"
        )


def _is_training_data(job: Job) -> bool:
    try:
        return job.reference.fingerprint == build_source(job.run.config.data.source).fingerprint
    except NotFoundError:  # then the reference is something else
        return False


def _batches(loader: Loader, total: int, size: int) -> Iterator[tuple[Batch, int]]:
    """Yield the batches of one epoch, each with the number of pictures to count; the last is filled with repeats."""
    for step in range(-(-total // size)):
        yield loader.batch(step), min(size, total - step * size)


@torch.no_grad()
def _losses(run: LoadedRun, batch: Batch) -> Float[Tensor, "times batch"]:
    """Return for each picture the loss at a time of the training distribution, then at one time in each bin."""
    first, cond = draw_held_out(run.config, run.objective, Conditioner(run.text, run.device), run.codec, batch)
    noised = [first]
    for number in range(BINS):
        step = _FIRST_BIN_STEP + number
        share = torch.from_numpy(uniform(run.config.seed, Stream.VALIDATION, batch.indices, step=step))
        t = _time(run.objective, (number + share) / BINS).to(first.x0)
        noised.append(Noised(run.objective.path.mix(first.x0, first.eps, t), t, first.x0, first.eps))
    return torch.stack([loss_per_picture(run.model, run.objective, each, cond) for each in noised]).cpu()


def _time(objective: Objective, t: Float[Tensor, " batch"]) -> Tensor:
    """Return the nearest times that the objective knows: DDPM has a grid, over which its training times are uniform."""
    return objective.times(t) if isinstance(objective, DDPM) else t


def _as_uint8(images: Float[Tensor, "batch channels height width"]) -> Tensor:
    return ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
