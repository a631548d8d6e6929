"""The optimiser state that a checkpoint must contain, derived from the optimisers themselves.

No table of optimisers: a twin of each optimiser makes one step on a parameter of each shape, and shows its slots.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leandit.run.fit import TensorSpec, check_tensors
from leandit.run.manifest import UnfitCheckpoint

Slots = Mapping[str, TensorSpec]


def optimizer_layout(optimizers: Iterable[torch.optim.Optimizer], model: nn.Module) -> dict[str, Slots]:
    """Return the slots of every parameter after its first step, by the parameter's name."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    layout: dict[str, Slots] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            known: dict[tuple[torch.Size, torch.dtype], Slots] = {}
            for parameter in group["params"]:
                key = (parameter.shape, parameter.dtype)
                if key not in known:
                    known[key] = _slots(optimizer, group, parameter)
                layout[names[parameter]] = known[key]
    return layout


def _slots(optimizer: torch.optim.Optimizer, group: Mapping[str, Any], parameter: Tensor) -> Slots:
    # The gradient is negative, so that an average of gradients is negative and an average of squares is positive; and
    # not -1, so that only a number of steps is 1.
    alike = nn.Parameter(torch.ones_like(parameter))
    alike.grad = torch.full_like(parameter, -0.5)
    twin = copy.copy(optimizer)
    twin.state = defaultdict(dict)
    twin.param_groups = [{**group, "params": [alike]}]
    twin.step()
    return {slot: _spec(value) for slot, value in twin.state[alike].items()}


def _spec(value: Tensor) -> TensorSpec:
    count = value.ndim == 0 and bool(value == 1)
    return TensorSpec(value.shape, value.dtype, positive=bool((value > 0).all()), count=count)


def check_optimizer_tensors(
    file: Path, tensors: Mapping[str, Tensor], layout: Mapping[str, Slots], idle: Collection[str] | None, step: int
) -> None:
    """Raise UnfitCheckpoint unless the tensors are the state of these optimisers at a step.

    `idle` names the parameters without state, which have had no gradient yet. None means that the checkpoint does not
    say which; then any parameter may lack its whole state, but not all of them.
    """
    found = {name.rpartition(".")[0] for name in tensors}
    if idle is None:
        idle = layout.keys() - found
    if step and len(idle) == len(layout) and layout:
        raise UnfitCheckpoint(f"{file}: no parameter has any state after {step} steps")
    expected = dict(_flat(layout, idle))
    check_tensors(file, tensors, expected, step)


def _flat(layout: Mapping[str, Slots], idle: Collection[str]) -> Iterator[tuple[str, TensorSpec]]:
    for name, slots in layout.items():
        if name not in idle:
            yield from ((f"{name}.{slot}", spec) for slot, spec in slots.items())
