"""The pictures that a training run leaves behind, drawn by callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from leandit.probe import ComputeRecorder, plot_compute, plot_curves
from leandit.sampling import draw, draw_grid, rows_by_label, save_png, to_pictures
from leandit.train import Callback, StepReport, read_metrics

if TYPE_CHECKING:
    from torch import Tensor

    from leandit.models import DiT
    from leandit.train import Trainer

_MAX_ROWS = 16
_PROBED = 6


class SampleGrids(Callback):
    """Draws grids/step-N.png with the EMA weights every `train.sample_every` steps."""

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        every = trainer.config.train.sample_every
        if every and report.step % every == 0 and report.step < trainer.config.train.steps:
            _save_grid(trainer, ema_model(trainer), f"grids/step-{report.step:08d}.png")


class FinalPictures(Callback):
    """Draws samples.png, loss.png and compute.png into the run's folder once the last step is done."""

    def on_end(self, trainer: Trainer) -> None:
        if trainer.step < trainer.config.train.steps:
            return
        model = ema_model(trainer)
        _save_grid(trainer, model, "samples.png")
        plot_curves(read_metrics(trainer.folder.metrics), trainer.folder.path / "loss.png")
        if trainer.config.model.moe is not None:
            _save_compute(trainer, model)


def ema_model(trainer: Trainer) -> DiT:
    """Return a copy of the model in evaluation mode with the averaged weights."""
    model = trainer.config.model.build().to(trainer.device)
    model.load_state_dict(trainer.ema.tensors)
    return model.eval()


def grid_labels(trainer: Trainer, count: int) -> list[int] | None:
    """Return `count` labels, the first classes in turn, grouped by class; None for a model without classes."""
    classes = min(trainer.config.model.num_classes or 0, _MAX_ROWS)
    if not classes:
        return None
    per_class = -(-count // classes)
    return [label for label in range(classes) for _ in range(per_class)]


def _save_grid(trainer: Trainer, model: DiT, name: str) -> None:
    settings = trainer.config.sampling
    labels = grid_labels(trainer, settings.grid)
    count = len(labels) if labels else settings.grid
    drawn = []
    for start in range(0, count, 64):
        label = None if labels is None else torch.tensor(labels[start : start + 64], device=trainer.device)
        seeds = list(range(start, min(start + 64, count)))
        drawn.append(to_pictures(draw(model, trainer.objective, label, seeds, settings)))
    rows = rows_by_label(torch.cat(drawn), labels, trainer.source.class_names)
    save_png(draw_grid(rows), trainer.folder.path / name)


def _save_compute(trainer: Trainer, model: DiT) -> None:
    labels = grid_labels(trainer, _PROBED)
    chosen = None if labels is None else labels[:: max(1, len(labels) // _PROBED)][:_PROBED]
    count = len(chosen) if chosen else _PROBED
    label: Tensor | None = None if chosen is None else torch.tensor(chosen, device=trainer.device)
    with ComputeRecorder(model, count) as recorder:
        drawn = draw(model, trainer.objective, label, list(range(count)), trainer.config.sampling)
    class_names = trainer.source.class_names
    names = [
        "" if chosen is None else class_names[i] if i < len(class_names) else str(i) for i in chosen or [0] * count
    ]
    moe = trainer.config.model.moe
    assert moe is not None
    plot_compute(recorder.trace(), to_pictures(drawn), names, moe.k, trainer.folder.path / "compute.png")
