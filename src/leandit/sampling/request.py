"""What to draw from a run: labels or prompts, a seed for each picture, and the sampler's settings."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from leandit.config import apply_overrides, validate
from leandit.config.wording import short
from leandit.errors import LeanDiTError
from leandit.grid import Grid, read_size
from leandit.run.conditioner import Wanted
from leandit.run.config import SamplingConfig
from leandit.sampling.load import LoadedRun
from leandit.text import check_captions


def picture_size(size: object) -> Grid | None:
    """Return the size for one number, (height, width) or a text such as 48x32. Raises LeanDiTError if it is invalid."""
    try:
        return None if size is None else Grid.of(read_size(size))
    except ValueError as error:
        raise LeanDiTError(f"size: {error}") from None


def every_pair(choices: list[int | str] | None, seeds: Sequence[int]) -> tuple[Wanted, list[int]]:
    """Return the label or prompt of each picture, and its seed: every seed for each choice, in the given order."""
    if choices is None:
        return None, list(seeds)
    return [choice for choice in choices for _ in seeds], [seed for _ in choices for seed in seeds]


def choose(run: LoadedRun, labels: Any, prompts: Iterable[Any] | None) -> list[int | str] | None:
    """Return the labels (several, or one) or prompts to draw; None for an unconditional model.

    Raises LeanDiTError for labels or prompts that the run cannot draw.
    """
    if run.text is not None:
        if labels is not None:
            raise LeanDiTError(f"{run.path}: the model is conditioned on text and has no classes; give prompts instead")
        if prompts is None:
            raise LeanDiTError(f"{run.path}: the model is conditioned on text; give prompts")
        return _checked(run, prompts)
    if prompts is not None:
        raise LeanDiTError(f"{run.path}: the model reads no text; choose classes with labels instead of prompts")
    if labels is not None:
        return [run.label(label) for label in as_list(labels)]
    return [*range(run.model.config.num_classes)] if run.model.config.num_classes else None


def as_list(given: Any) -> list[Any]:
    """Return several things as a list: also a tensor or an array, and one text or number by itself."""
    values = given.tolist() if hasattr(given, "tolist") else given
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]


def whole_numbers(name: str, given: Any) -> list[int]:
    """Return whole numbers as a list. Raises LeanDiTError, with `name`, for a fraction, a text or true."""
    values = as_list(given)
    for value in values:
        check_number(name, value, int)
    return [operator.index(value) for value in values]


def check_number(name: str, value: Any, kind: type, least: int | None = None) -> None:
    """Raise LeanDiTError, with `name`, unless the value is a number of this kind and at least `least`."""
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not whole and not (kind is float and isinstance(value, float)):
        wanted = "a whole number" if kind is int else "a number"
        raise LeanDiTError(f"{name}: {short(value)} is not {wanted}")
    if least is not None and value < least:
        raise LeanDiTError(f"{name} = {value}: must be at least {least}")


def _checked(run: LoadedRun, prompts: Iterable[Any]) -> list[int | str]:
    """Return the prompts as a list. Raises LeanDiTError if one is empty, too long or not text."""
    assert run.config.text is not None
    chosen = prompts if isinstance(prompts, str) else list(prompts)
    names = [f"prompt {number} of {len(chosen)}" for number in range(1, len(chosen) + 1)]
    check_captions(chosen, run.config.text.max_caption_chars, allow_empty=False, names=names)
    return list(chosen)


def sampling_settings(base: SamplingConfig, steps: int | None, guidance: float | None) -> SamplingConfig:
    """Return the run's settings with another number of steps or another guidance scale, validated."""
    overrides = [f"sampler.steps={steps}"] if steps is not None else []
    overrides += [f"guidance.scale={guidance}"] if guidance is not None else []
    return validate(
        SamplingConfig, apply_overrides(base.model_dump(mode="json"), overrides, SamplingConfig), "sampling"
    )
