"""The Python interface: what the commands do, as four functions. The commands are thin over these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from leandit import sampling
from leandit.config import apply_overrides, validate
from leandit.errors import LeanDiTError
from leandit.grid import Grid, read_size
from leandit.models import Backbone
from leandit.pictures import FinalPictures, SampleGrids
from leandit.presets import model_config, run_config
from leandit.run import RunConfig, SamplingConfig
from leandit.sampling import LoadedRun, load
from leandit.text import check_captions
from leandit.training import Callback, Task, TaskContext, run_training

__all__ = ["create_model", "load", "run_config", "sample", "sampling_settings", "train"]


def create_model(name: str, **overrides: Any) -> Backbone:
    """Return a named model with fresh weights, such as "RaceDiT-B/2-4in32" or "DiT-S/4".

    Overrides are fields of its config, such as `input_size=16`, `num_classes=10` or `moe=None`. Under
    `with torch.device("meta")` it costs no memory. Raises LeanDiTError for an unknown name or field.
    """
    config = model_config(name)
    return validate(type(config), {**config.model_dump(mode="json"), **overrides}, f"create_model({name!r})").build()


def train(
    config: RunConfig,
    out: str | Path,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    task: Callable[[TaskContext], Task] | None = None,
) -> int:
    """Train a run in the folder `out` and leave samples.png, loss.png and compute.png in it.

    `task` makes what is learned, if it is not what the configuration names: a class or a function that takes a
    `leandit.training.TaskContext`. Returns 0, or 130 / 143 when Ctrl-C or SIGTERM ended it after a checkpoint.
    """
    return run_training(config, Path(out), resume, [*callbacks, SampleGrids(), FinalPictures()], task)


def sample(
    run: LoadedRun | str | Path,
    labels: Iterable[int | str] | None = None,
    seeds: Iterable[int] = range(16),
    *,
    prompts: Iterable[str] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    size: int | tuple[int, int] | None = None,
    compute: float = 1.0,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> UInt8[Tensor, "batch height width channels"]:
    """Return pictures 0..255 on the CPU: for each label or prompt, in the order given, one picture per seed.

    Labels are numbers or class names; None means every class of a class-conditional model. A text model takes
    `prompts`. `steps` and `guidance` default to the run's own, and so does `size`: one number for a square, or (height,
    width), which the model's patch size divides; for a run on latents it counts those. `compute` is the share of the
    trained experts per token, about: 0.5 is half of them, 1 is as trained; another share than 1 needs a router with a
    threshold, and first makes a few drawings to shift it by. One seed, size and label or prompt is one picture,
    whatever else is drawn with it (to 1e-4).
    """
    loaded = run if isinstance(run, LoadedRun) else load(run)
    settings = sampling_settings(loaded.config.sampling, steps, guidance)
    wanted, each_seed = every_pair(choose(loaded, labels, prompts), list(seeds))
    grid = picture_size(size)
    with sampling.at_compute(loaded, float(compute)):
        return sampling.sample(loaded, wanted, each_seed, settings, batch_size, progress, grid)


def picture_size(size: object) -> Grid | None:
    """Return the size that one number, (height, width) or a text such as 48x32 names; LeanDiTError for no size."""
    try:
        return None if size is None else Grid.of(read_size(size))
    except ValueError as error:
        raise LeanDiTError(f"size: {error}") from None


def every_pair(choices: list[int | str] | None, seeds: Sequence[int]) -> tuple[Wanted, list[int]]:
    """Return what is wanted and the seed of each picture: for each label or prompt, in the order given, every seed."""
    if choices is None:
        return None, list(seeds)
    return [choice for choice in choices for _ in seeds], [seed for _ in choices for seed in seeds]


def choose(run: LoadedRun, labels: Iterable[int | str] | None, prompts: Iterable[str] | None) -> list[int | str] | None:
    """Return the labels or prompts to draw, checked against the run; None for an unconditional model."""
    if run.text is not None:
        if labels is not None:
            raise LeanDiTError(f"{run.path}: the model is conditioned on text and has no classes; give prompts instead")
        if prompts is None:
            raise LeanDiTError(f"{run.path}: the model is conditioned on text; say what to draw with prompts")
        return _checked(run, prompts)
    if prompts is not None:
        raise LeanDiTError(f"{run.path}: the model reads no text; choose classes with labels instead of prompts")
    if labels is not None:
        return [run.label(str(label)) for label in labels]
    return [*range(run.model.config.num_classes)] if run.model.config.num_classes else None


def _checked(run: LoadedRun, prompts: Iterable[str]) -> list[int | str]:
    """Return the prompts as a list, or raise LeanDiTError for one that is empty, too long or no text."""
    assert run.config.text is not None
    chosen = prompts if isinstance(prompts, str) else list(prompts)
    names = [f"prompt {number} of {len(chosen)}" for number in range(1, len(chosen) + 1)]
    check_captions(chosen, run.config.text.max_caption_chars, allow_empty=False, names=names)
    return list(chosen)


def sampling_settings(base: SamplingConfig, steps: int | None, guidance: float | None) -> SamplingConfig:
    """Return the run's settings with other numbers of steps or guidance scales, validated."""
    overrides = [f"sampler.steps={steps}"] if steps is not None else []
    overrides += [f"guidance.scale={guidance}"] if guidance is not None else []
    return validate(SamplingConfig, apply_overrides(base.model_dump(mode="json"), overrides), "sampling")
