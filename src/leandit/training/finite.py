"""Errors for numbers that are not finite, before they reach the weights or a checkpoint."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from leandit.errors import LeanDiTError

_SHOWN = 8


def loss_error(
    step: int,
    samples: Sequence[str],
    parts: Sequence[str],
    weights: Mapping[str, Tensor],
    run: Path,
    saved: Sequence[int],
) -> LeanDiTError:
    """Return the error for a loss that is not finite. It blames weights that are not finite if there are any.

    Else it names the samples whose own loss is not finite, or without such samples the `parts` of the loss.
    """
    if bad := bad_tensors(weights):
        blamed, advice = f"Weights that are not finite: {_shortened(bad)}", ""
    elif samples:
        blamed, advice = f"Samples: {_shortened(samples)}", ", or look at these samples"
    else:
        blamed, advice = f"Parts of the loss: {_shortened(parts)}; every sample's own loss is finite", ""
    return LeanDiTError(
        f"step {step}: the loss is not finite; stopped before it reached the weights.\n"
        f"{blamed}\n{_way_out(run, saved)}{advice}"
    )


def gradient_error(step: int, gradients: Mapping[str, Tensor], run: Path, saved: Sequence[int]) -> LeanDiTError:
    """Return the error for a gradient that is not finite, although the loss is: it names tensors and experts."""
    bad = bad_tensors(gradients)
    blamed = _shortened(bad) if bad else "none by itself, only their norm: it is too large for the dtype"
    return LeanDiTError(
        f"step {step}: the gradient is not finite; stopped before it reached the weights.\n"
        f"Gradients that are not finite: {blamed}\n{_way_out(run, saved)}"
    )


def check_finite(kind: str, tensors: Mapping[str, Tensor], step: int, run: Path, saved: Sequence[int]) -> None:
    """Raise LeanDiTError if any value is not finite. A finite gradient with a huge rate can still ruin the weights."""
    if bad := bad_tensors(tensors):
        raise LeanDiTError(
            f"step {step}: the {kind} are not finite; no checkpoint of them was written.\n"
            f"Tensors: {_shortened(bad)}\n{_way_out(run, saved)}"
        )


def bad_tensors(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors with values that are not finite; of experts' tensors also which experts."""
    found = []
    for name, tensor in tensors.items():
        finite = torch.isfinite(tensor)
        if finite.all():
            continue
        if ".experts." in name:
            experts = (~finite.flatten(1).all(1)).nonzero().flatten().tolist()
            name += f" (expert{'s' if len(experts) > 1 else ''} {', '.join(map(str, experts))})"
        found.append(name)
    return found


def _way_out(run: Path, saved: Sequence[int]) -> str:
    remedy = "a lower optimizer.lr, a longer schedule.warmup_steps or train.precision=fp32"
    if not saved:
        return f"Newest checkpoint: none yet. Start again in another --out with {remedy}"
    return (
        f"Newest checkpoint: step {saved[-1]}. A resumed run keeps its settings, so start another one from it with "
        f"{remedy}: {shlex.join(['leandit', 'train', str(run / 'config.json'), f'start.path={run}'])} --out NEW "
        "optimizer.lr=..."
    )


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
