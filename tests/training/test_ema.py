"""The moving average against its recursion in plain Python floats."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leandit.training.ema import EMA


class Scalar(nn.Module):
    """One weight and one buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("threshold", torch.tensor(5.0))


def set_to(model: Scalar, weight: float, threshold: float) -> None:
    with torch.no_grad():
        model.weight.fill_(weight)
        model.threshold.fill_(threshold)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9999])
def test_recursion_with_its_ramp(decay: float) -> None:
    model = Scalar()
    ema = EMA(model, decay)
    expected = 2.0
    for step in range(60):
        set_to(model, float(step**2), -step)
        ema.update(model, step)
        d = min(decay, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * step**2
        assert ema.tensors["weight"].item() == pytest.approx(expected, rel=1e-5)
        assert ema.tensors["threshold"].item() == -step


def test_averages_are_copies_and_follow_the_model_only_by_update() -> None:
    model = Scalar()
    ema = EMA(model, 0.9)
    set_to(model, 100.0, 100.0)
    assert (ema.tensors["weight"].item(), ema.tensors["threshold"].item()) == (2.0, 5.0)
    assert not ema.tensors["weight"].requires_grad
    saved = {name: tensor + 1 for name, tensor in ema.tensors.items()}
    ema.load(saved)
    saved["weight"].zero_()
    assert ema.tensors["weight"].item() == 3.0
