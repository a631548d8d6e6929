"""The Python interface: what the commands do, as functions. The commands are thin over these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from jaxtyping import UInt8
from PIL.Image import Image
from torch import Tensor

from leandit import sampling
from leandit.config import validate
from leandit.errors import LeanDiTError
from leandit.evaluation.runner import evaluate
from leandit.models import Backbone
from leandit.pictures import FinalPictures, SampleGrids
from leandit.presets import MODELS, model_config, run_config
from leandit.probing.runner import probe
from leandit.run import RunConfig
from leandit.run.comparison import compare
from leandit.run.listing import list_runs
from leandit.sampling import LoadedRun, choose, every_pair, load, picture_size, sampling_settings
from leandit.sampling.request import check_number, whole_numbers
from leandit.training import Callback, Task, TaskContext, run_training
from leandit.training.dry_run import dry_run

__all__ = [
    "choose",
    "compare",
    "create_model",
    "dry_run",
    "evaluate",
    "every_pair",
    "list_models",
    "list_runs",
    "load",
    "probe",
    "run_config",
    "sample",
    "sampling_settings",
    "train",
]


def create_model(name: str, **overrides: Any) -> Backbone:
    """Return a named model with fresh weights, such as "RaceDiT-B/2-4in32" or "DiT-S/4".

    Overrides are fields of its config, such as `input_size=16`, `num_classes=10` or `moe=None`. Under
    `with torch.device("meta")` it costs no memory. Raises LeanDiTError for an unknown name or field.
    """
    config = model_config(name)
    return validate(type(config), {**config.model_dump(mode="json"), **overrides}, f"create_model({name!r})").build()


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the named models that match a pattern such as "race*", whatever the case."""
    return [name for name in MODELS if fnmatchcase(name.lower(), pattern.lower())]


def train(
    config: RunConfig,
    out: str | Path,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    task: Callable[[TaskContext], Task] | None = None,
) -> int:
    """Train a run in the folder `out` and leave samples.png, loss.png and compute.png in it.

    `task` makes what is learned, if it is not what the configuration names: a class or a function that takes a
    `leandit.training.TaskContext`. Returns 0, or 130 / 143 if Ctrl-C or SIGTERM ended it after a checkpoint.
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
    output: Literal["tensor", "pil"] = "tensor",
) -> UInt8[Tensor, "batch height width channels"] | list[Image]:
    """Return pictures 0..255 on the CPU: for each label or prompt, in the order given, one picture per seed.

    They are one uint8 tensor, or with `output="pil"` a list of PIL pictures.

    Labels are numbers or class names; None means every class of a class-conditional model. A text model takes
    `prompts`. `steps` and `guidance` default to the run's own, and so does `size`: one number for a square, or (height,
    width), which the model's patch size divides; for a run on latents it counts those. `compute` is the share of the
    trained experts per token, about: 0.5 is half of them, 1 is as trained; another share than 1 needs a router with a
    threshold, and first makes a few drawings to shift it by. One seed, size and label or prompt is one picture,
    whatever else is drawn with it (to 1e-4).
    """
    if output not in ("tensor", "pil"):
        raise LeanDiTError(f"output = {output!r} is not one of tensor, pil")
    loaded = run if isinstance(run, LoadedRun) else load(run)
    if output == "pil" and loaded.codec.no_pictures is not None:
        raise LeanDiTError(f"output = 'pil': {loaded.path}: {loaded.codec.no_pictures}")
    settings = sampling_settings(loaded.config.sampling, steps, guidance)
    check_number("batch_size", batch_size, int, 1)
    check_number("compute", compute, float)
    wanted, each_seed = every_pair(choose(loaded, labels, prompts), whole_numbers("seeds", seeds))
    grid = picture_size(size)
    with sampling.at_compute(loaded, float(compute)):
        pictures = sampling.sample(loaded, wanted, each_seed, settings, batch_size, progress, grid)
    return [sampling.to_image(picture) for picture in pictures] if output == "pil" else pictures
