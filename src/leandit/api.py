"""The Python interface: what the commands do, as four functions. The commands are thin over these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from leandit import sampling
from leandit.config import apply_overrides, validate
from leandit.models import DiT, DiTConfig
from leandit.pictures import FinalPictures, SampleGrids
from leandit.presets import model_config
from leandit.sampling import LoadedRun, load
from leandit.train import Callback, RunConfig, SamplingConfig, run_training

__all__ = ["create_model", "load", "sample", "sampling_settings", "train"]


def create_model(name: str, **overrides: Any) -> DiT:
    """Return a named model with fresh weights, such as "RaceDiT-B/2-4in32" or "DiT-S/4".

    Overrides are fields of its config, such as `input_size=16`, `num_classes=10` or `moe=None`. Under
    `with torch.device("meta")` it costs no memory. Raises LeanDiTError for an unknown name or field.
    """
    config = model_config(name)
    return validate(DiTConfig, {**config.model_dump(mode="json"), **overrides}, f"create_model({name!r})").build()


def train(config: RunConfig, out: str | Path, resume: bool = False, callbacks: Sequence[Callback] = ()) -> int:
    """Train a run in the folder `out` and leave samples.png, loss.png and compute.png in it.

    Returns 0, or 130 / 143 when Ctrl-C or SIGTERM ended it after a checkpoint.
    """
    return run_training(config, Path(out), resume, [*callbacks, SampleGrids(), FinalPictures()])


def sample(
    run: LoadedRun | str | Path,
    labels: Iterable[int | str] | None = None,
    seeds: Iterable[int] = range(16),
    *,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> UInt8[Tensor, "batch height width channels"]:
    """Return pictures 0..255 on the CPU: for each label, in the order given, one picture per seed.

    Labels are numbers or class names; None means every class of a conditional model. `steps` and `guidance`
    default to the run's own. One seed and label is one picture, whatever else is drawn with it (to 1e-4).
    """
    loaded = run if isinstance(run, LoadedRun) else load(run)
    settings = sampling_settings(loaded.config.sampling, steps, guidance)
    each_label, each_seed = every_pair(label_list(loaded, labels), list(seeds))
    return sampling.sample(loaded, each_label, each_seed, settings, batch_size, progress)


def every_pair(labels: Sequence[int] | None, seeds: Sequence[int]) -> tuple[list[int] | None, list[int]]:
    """Return the label and the seed of each picture: for each label, in the order given, every seed."""
    if labels is None:
        return None, list(seeds)
    return [label for label in labels for _ in seeds], [seed for _ in labels for seed in seeds]


def label_list(run: LoadedRun, labels: Iterable[int | str] | None) -> list[int] | None:
    """Return the labels to draw; None for an unconditional model."""
    if labels is not None:
        return [run.label(str(label)) for label in labels]
    return list(range(run.model.config.num_classes)) if run.model.config.num_classes else None


def sampling_settings(base: SamplingConfig, steps: int | None, guidance: float | None) -> SamplingConfig:
    """Return the run's settings with other numbers of steps or guidance scales, validated."""
    overrides = [f"sampler.steps={steps}"] if steps is not None else []
    overrides += [f"guidance.scale={guidance}"] if guidance is not None else []
    return validate(SamplingConfig, apply_overrides(base.model_dump(mode="json"), overrides), "sampling")
