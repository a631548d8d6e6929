"""How far each optimiser moves a weight whose gradient keeps its sign, measured in steps of its nominal rate."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from leandit.run.recipe import OptimizerConfig
from leandit.training.optimizers import build_optimizers

KINDS = {kind.model_fields["type"].default: kind for kind in get_args(get_args(OptimizerConfig)[0])}
STEPS = 300
# Bounds of the mean step over the rate. An optimiser that is not listed here must be within a factor of two.
BOUNDS = {
    # Both moments are corrected for their start at 0, so every step is the rate.
    "adamw": (0.99, 1.01),
    # Steps have the root mean square 1 at most. The first moment is not corrected, which costs 9 of 300 steps, and one
    # number per row and column instead of one per weight leaves steps of other weights a little above or below.
    "adafactor": (0.9, 1.0),
    # The mean of squares is not corrected: with a decay of 0.99 the first steps are larger, and over 300 steps they add
    # about a third.
    "rmsprop": (1.0, 1.4),
    # AdamW moves what Muon leaves to it.
    "muon": (0.99, 1.01),
}
# Muon's matrices have singular values of about 1 times 0.2 sqrt(longer side): the root mean square 0.2, by design
# (Liu et al., 2502.16982, eq. 4).
BOUNDS_OF_MUONS_MATRICES = (0.12, 0.25)
MUONS = ("attention.weight", "experts.w1")


class Experts(nn.Module):
    """A stack of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(3, 12, 18))


class Weights(nn.Module):
    """A parameter of each kind that a backbone has: matrix, bias, stack, table, vector."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(24, 16)
        self.experts = Experts()
        self.label_embedding = nn.Embedding(5, 16)
        self.mask_token = nn.Parameter(torch.empty(16))


@pytest.mark.parametrize("gradient", [1e-5, 1.0, 1e3])
@pytest.mark.parametrize("weight", [0.0, 0.05])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_as_large_as_the_rate(kind: str, weight: float, gradient: float) -> None:
    """Also for weights that are 0 at the start, and for gradients as small as those of large models after clipping."""
    model, generator = Weights(), torch.Generator().manual_seed(0)
    config = KINDS[kind](lr=1e-4)
    if kind == "muon":
        config = config.replace(adamw={"lr": 1e-4})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=weight, generator=generator)
        sign = torch.randn(parameter.shape, generator=generator).sign()
        parameter.grad = gradient * sign * (0.5 + torch.rand(parameter.shape, generator=generator))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizers = build_optimizers(config, model)
    for _ in range(STEPS):
        for optimizer in optimizers:
            optimizer.step()
    for name, parameter in model.named_parameters():
        moved = (parameter.detach() - before[name]).square().mean().sqrt().item() / (STEPS * config.lr)
        low, high = BOUNDS.get(kind, (0.5, 2.0))
        if kind == "muon" and name in MUONS:
            low, high = BOUNDS_OF_MUONS_MATRICES
        assert low <= moved <= high * (1 + 1e-4), (name, moved)


def test_torchs_adafactor_and_undamped_momentum_are_out_of_these_bounds() -> None:
    """What DiT-Air's and EC-DiT's optimisers were before: 1,000 times too slow from 0, and 10 times too fast."""
    for weight, slow in ((0.0, 0.002), (0.05, 0.06)):
        parameter = nn.Parameter(torch.full((16, 24), weight))
        parameter.grad = torch.ones_like(parameter)
        optimizers = [torch.optim.Adafactor([parameter], lr=1e-4)]
        moved = _moved(parameter, optimizers[0])
        assert moved < slow
    parameter = nn.Parameter(torch.zeros(16, 24))
    parameter.grad = torch.ones_like(parameter)
    assert _moved(parameter, torch.optim.RMSprop([parameter], lr=1e-4, momentum=0.9)) > 10


def _moved(parameter: nn.Parameter, optimizer: torch.optim.Optimizer) -> float:
    before = parameter.detach().clone()
    for _ in range(STEPS):
        optimizer.step()
    return (parameter.detach() - before).square().mean().sqrt().item() / (STEPS * 1e-4)
