"""Errors for numbers that are not finite, before they reach the weights or a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from leandit.errors import LeanDiTError

_SHOWN = 8


def non_finite(what: str, step: int, keys: Sequence[str], saved: Sequence[int]) -> LeanDiTError:
    """Return the error for a loss or gradient that is not finite. `keys` name the samples of the step."""
    return LeanDiTError(
        f"step {step}: the {what} is not finite; stopped before it reached the weights.\n"
        f"Samples: {_shortened(keys)}\n{_way_out(saved)}, or look at these samples"
    )


def check_finite(kind: str, tensors: Mapping[str, Tensor], step: int, saved: Sequence[int]) -> None:
    """Raise LeanDiTError if any value is not finite. A finite gradient with a huge rate can still ruin the weights."""
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise LeanDiTError(
            f"step {step}: the {kind} are not finite; no checkpoint of them was written.\n"
            f"Tensors: {_shortened(bad)}\n{_way_out(saved)}"
        )


def _way_out(saved: Sequence[int]) -> str:
    return (
        f"Newest checkpoint: {f'step {saved[-1]}' if saved else 'none yet'}. "
        "Lower optimizer.lr, lengthen schedule.warmup_steps, set train.precision=fp32"
    )


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
