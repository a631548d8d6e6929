"""Whether the content of a checkpoint fits. Hashes show damage; this shows what was wrong already when it was hashed.

Each error is an UnfitCheckpoint that names the file and the first thing that is wrong in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from leandit.config import validate
from leandit.errors import LeanDiTError
from leandit.run.checkpoint import CONFIG, STATE, Checkpoint
from leandit.run.config import RunConfig
from leandit.run.manifest import UnfitCheckpoint
from leandit.run.resume import identity_changes


@dataclass(frozen=True)
class TensorSpec:
    """The tensor that is expected under a name."""

    shape: torch.Size
    dtype: torch.dtype
    positive: bool = False
    """No value is negative, such as an average of squares."""
    fills: bool = False
    """A single value fits, too, and fills the tensor: thresholds of `be_choice` were one value before each row had its
    own."""
    count: bool = False
    """A number of steps: whole, from 1 to the checkpoint's step."""


class _TaskRecord(BaseModel):
    model_config = ConfigDict(strict=True)
    name: str = Field(alias="class")
    identity: dict[str, Any]
    state: dict[str, Any]


class _MetricsMark(BaseModel):
    model_config = ConfigDict(strict=True)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _State(BaseModel):
    """The parts of state.json. Version 1 of the format may lack any of them; none of them may be null."""

    model_config = ConfigDict(strict=True)
    samples_seen: int = Field(0, ge=0)
    class_names: list[str] = []
    pictures: int = Field(0, ge=0)
    fingerprint: str = ""
    contents: str = ""
    text_encoder: str = ""
    codec: dict[str, Any] = {}
    # None if it is missing; a file must not say null.
    task: _TaskRecord = None  # type: ignore[assignment]
    idle_parameters: list[str] = []
    metrics: _MetricsMark = None  # type: ignore[assignment]


_OPTIONAL = {"text_encoder", "idle_parameters", "metrics"}


def specs_of(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """Return what is expected of saved copies of these tensors."""
    return {
        name: TensorSpec(tensor.shape, tensor.dtype, fills=name.endswith("router.threshold.value"))
        for name, tensor in tensors.items()
    }


def check_tensors(
    file: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, TensorSpec], step: int, exact: bool = True
) -> None:
    """Raise UnfitCheckpoint unless names, shapes, dtypes and values are as expected.

    Without `exact`, any floating-point dtype fits any other, as in weights that were converted to save space.
    """
    for name in sorted(expected.keys() ^ tensors.keys()):
        raise UnfitCheckpoint(f"{file}: {name!r} is {'missing' if name in expected else 'unknown to this run'}")
    for name, tensor in tensors.items():
        spec = expected[name]
        if tensor.shape != spec.shape and not (spec.fills and not tensor.ndim):
            raise UnfitCheckpoint(f"{file}: {name!r} has the shape {[*tensor.shape]}, expected {[*spec.shape]}")
        floating = tensor.dtype.is_floating_point and spec.dtype.is_floating_point and not exact
        if tensor.dtype != spec.dtype and not floating:
            raise UnfitCheckpoint(f"{file}: {name!r} is {tensor.dtype}, expected {spec.dtype}")
        if spec.positive and bool((tensor < 0).any()):
            raise UnfitCheckpoint(f"{file}: {name!r} has negative values, and is an average of squares or a number")
        if spec.count and not (1 <= float(tensor) <= step and float(tensor).is_integer()):
            raise UnfitCheckpoint(f"{file}: {name!r} is {float(tensor)}, expected a number of steps up to {step}")
    check_finite_tensors(file, tensors)


def check_finite_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise UnfitCheckpoint if a value is not finite. LeanDiT never saves such a value."""
    for name, tensor in tensors.items():
        # Some 8-bit formats have no test for infinity of their own.
        values = tensor.float() if tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1 else tensor
        if not torch.isfinite(values).all():
            raise UnfitCheckpoint(f"{file}: {name!r} has values that are not finite")


def check_state(checkpoint: Checkpoint) -> None:
    """Raise UnfitCheckpoint unless all parts of state.json are there, each of its type."""
    file = checkpoint.path / STATE
    missing = _State.model_fields.keys() - _OPTIONAL - checkpoint.state.keys()
    if missing and checkpoint.manifest.version > 1:
        raise UnfitCheckpoint(f"{file}: {min(missing)!r} is missing")
    try:
        _State.model_validate(checkpoint.state)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UnfitCheckpoint(f"{file}: {place!r} is invalid: {first['msg']}") from None


def check_config(checkpoint: Checkpoint, config: RunConfig) -> None:
    """Raise UnfitCheckpoint if config.json is not that of this run, apart from what may change on resume."""
    file = checkpoint.path / CONFIG
    try:
        saved = validate(RunConfig, checkpoint.config, str(file))
    except LeanDiTError as error:
        raise UnfitCheckpoint(str(error)) from None
    changes = [f"{key} is {old!r} there, {new!r} in the run" for key, old, new in identity_changes(saved, config)]
    if changes:
        raise UnfitCheckpoint(f"{file}: the config of another run: {'; '.join(changes[:3])}")
