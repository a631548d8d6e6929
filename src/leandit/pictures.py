"""The pictures that a training run leaves behind, drawn by callbacks."""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile

from leandit.diffusion.samplers import Progress
from leandit.errors import LeanDiTError
from leandit.moe import routers
from leandit.probing import AXES, build_report, draw_recorded, plot_compute, plot_curves, probe_facts, write_report
from leandit.probing.verdict import verdict
from leandit.run import read_metrics
from leandit.run.conditioner import NO_CAPTION
from leandit.sampling import LoadedRun, claim_folder, draw_grid, rows_by_label, sample, save_png
from leandit.text import CombinedEncoder, attach_finetuned
from leandit.training import Callback, RunView, StepReport
from leandit.training.tasks import DenoiseTask

# Rows of a grid and of the compute map: with more classes or prompts, the first ones are shown.
_GRID_ROWS = 16
_PROBED = 6


class SampleGrids(Callback):
    """Draws grids/step-N.png with the EMA weights every `train.sample_every` steps."""

    def on_step(self, view: RunView, report: StepReport) -> None:
        every = view.config.train.steps_between_grids
        if not _draws_pictures(view):
            return
        if every and report.step % every == 0 and report.step < view.config.train.steps:
            try:
                _save_grid(averaged_run(view), _kept(view, "step"), _progress(view, "a grid of samples"))
            except OSError as error:
                view.warn(f"the grid of samples could not be written: {error.strerror or error}")


class FinalPictures(Callback):
    """Draws samples.png, loss.png and compute.png into the run's folder once the last step is done.

    With experts it also leaves the routing report in probe/, as numbers and, if plotly is installed, as a page. Of a
    run that learns latents, which are no pictures, it draws loss.png alone. A run that is made longer draws them again:
    those of every end stay in grids/, as step-N.png and compute-N.png.
    """

    def on_start(self, view: RunView) -> None:
        if type(view.task) is DenoiseTask and not _draws_pictures(view):
            view.warn("the data are latents, so no pictures are drawn; `leandit sample` writes latents")

    def on_finish(self, view: RunView) -> None:
        path = view.folder.path
        try:
            run = averaged_run(view) if _draws_pictures(view) else None
            if run is not None:
                _save_grid(run, _kept(view, "step"), _progress(view, "samples"))
                copyfile(_kept(view, "step"), path / "samples.png")
            plot_curves(read_metrics(view.folder.metrics), path / "loss.png")
            if run is not None and any(True for _ in routers(run.model)):
                _save_routing(run, _kept(view, "compute"), _progress(view, "where experts go"))
                copyfile(_kept(view, "compute"), path / "compute.png")
        except OSError as error:
            raise LeanDiTError(
                f"{path}: the pictures cannot be written: {error.strerror}.\n"
                "The last checkpoint is safe; with space at hand, `leandit sample` draws from it"
            ) from None


def _kept(view: RunView, name: str) -> Path:
    """Return the path of this step's picture in grids/, which exists then."""
    # Without parents: a run's folder that was moved away must not appear again.
    view.folder.grids.mkdir(exist_ok=True)
    return view.folder.grids / f"{name}-{view.step:08d}.png"


def _draws_pictures(view: RunView) -> bool:
    # A task that is derived from denoising may have weights that no loaded run has.
    return type(view.task) is DenoiseTask and view.task.codec.no_pictures is None


def averaged_run(view: RunView) -> LoadedRun:
    """Return a run to sample from: a copy of the model in evaluation mode with the averaged weights."""
    task = view.task
    assert isinstance(task, DenoiseTask)
    text = task.conditioner.encoder
    text = text.copy() if isinstance(text, CombinedEncoder) else text
    model = view.config.model.build()
    attach_finetuned(model, text)
    model.to(task.device).load_state_dict(view.averaged_weights)
    names, path = view.source.class_names, view.folder.path
    return LoadedRun(view.config, model.eval(), task.objective, names, view.step, path, text)


def _progress(view: RunView, what: str) -> Progress:
    """Return a callback for `sample`. It raises Stopped once a signal has come, because drawing may take long."""

    def progress(done: int, total: int) -> None:
        view.stop.check()
        view.drawing(what, done, total)

    return progress


def _save_grid(run: LoadedRun, path: Path, progress: Progress) -> None:
    count = run.config.sampling.grid
    rows = _choices(run, _GRID_ROWS)
    wanted = [choice for choice in rows for _ in range(-(-count // len(rows)))] if rows else None
    pictures = sample(run, wanted, range(len(wanted) if wanted else count), progress=progress)
    save_png(draw_grid(rows_by_label(pictures, wanted, run.class_names)), path)


def _save_routing(run: LoadedRun, compute: Path, progress: Progress) -> None:
    """Write the map of compute and the routing report from one drawing of a few pictures."""
    choices = _choices(run, _PROBED)
    wanted = (choices * _PROBED)[: max(len(choices), 3)] if choices else None
    seeds = range(len(wanted) if wanted else _PROBED)
    drawn = draw_recorded(run, wanted, seeds, progress=progress)
    moe = run.config.model.moe
    assert moe is not None
    assert drawn.pictures is not None
    plot_compute(drawn.trace, drawn.pictures, drawn.names, moe.experts_per_token(training=False), compute)
    folder = claim_folder(run.path / "probe", False, probe_facts([(run, wanted, seeds, run.config.sampling)], AXES, 0))
    report = build_report(drawn)
    write_report([{**report, "verdict": verdict(report)}], [drawn], folder, figures=False)


def _choices(run: LoadedRun, most: int) -> list[int | str] | None:
    """Return what a picture can be asked to show: the first classes, or the config's prompts."""
    if run.text is not None:
        return list(run.config.sampling.prompts[:most]) or [NO_CAPTION]
    return list(range(min(run.config.model.num_classes or 0, most))) or None
