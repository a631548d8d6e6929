"""RMSProp against its formula in plain loops over Python's numbers, and against torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from leandit.run import RMSPropConfig
from leandit.training.rmsprop import RMSProp

SHAPES = [(5, 7), (2, 3, 4), (6,), ()]
RATES = [0.01, 0.03, 0.02, 0.02, 0.001, 0.0]
OPTIONS = st.fixed_dictionaries(
    {
        "momentum": st.sampled_from([0.0, 0.5, 0.9]),
        "damped": st.booleans(),
        "decay": st.sampled_from([0.9, 0.99]),
        "eps": st.sampled_from([1e-8, 1e-3, 1.0]),
        "eps_in_root": st.booleans(),
        "weight_decay": st.sampled_from([0.0, 0.1]),
    }
)


def loops(start: list[float], gradients: list[list[float]], o: dict[str, Any]) -> list[float]:
    """Return the weights after the steps. Damped momentum is a mean of updates, undamped momentum a sum."""
    weights = list(start)
    for place in range(len(weights)):
        square = moment = 0.0
        for rate, gradient in zip(RATES, gradients, strict=True):
            g, w = gradient[place], weights[place]
            square = o["decay"] * square + (1 - o["decay"]) * g**2
            update = g / math.sqrt(square + o["eps"]) if o["eps_in_root"] else g / (math.sqrt(square) + o["eps"])
            moment = o["momentum"] * moment + (1 - o["momentum"] if o["damped"] else 1) * update
            weights[place] = w - rate * o["weight_decay"] * w - rate * moment
    return weights


@settings(max_examples=40, deadline=None)
@given(options=OPTIONS, seed=st.integers(0, 2**16), scale=st.sampled_from([1e-4, 1.0, 30.0]))
def test_it_is_the_formula_in_loops(options: dict[str, Any], seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    starts = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    parameters = [nn.Parameter(start.clone()) for start in starts]
    gradients = [[torch.randn(s, generator=generator, dtype=torch.float64) * scale for s in SHAPES] for _ in RATES]
    optimizer = RMSProp(parameters, lr=1.0, **options)
    for rate, row in zip(RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for parameter, gradient in zip(parameters, row, strict=True):
            parameter.grad = gradient
        optimizer.step()
    for place, (parameter, start) in enumerate(zip(parameters, starts, strict=True)):
        own = [row[place].reshape(-1).tolist() for row in gradients]
        expected = torch.tensor(loops(start.reshape(-1).tolist(), own, options), dtype=torch.float64)
        torch.testing.assert_close(parameter.detach().reshape(-1), expected, rtol=1e-10, atol=1e-12)


def older() -> RMSPropConfig:
    """The complete table of a run that was made with torch's RMSprop."""
    table = {"lr": 1e-3, "momentum": 0.9, "alpha": 0.95, "eps": 1e-6, "weight_decay": 0.0}
    return RMSPropConfig.model_validate({"type": "rmsprop", **table})


def test_an_older_run_is_read_as_the_torch_optimiser_that_it_had() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    optimizer = RMSProp(ours, **older().model_dump(exclude={"type"}))
    reference = torch.optim.RMSprop(theirs, lr=1e-3, alpha=0.95, eps=1e-6, momentum=0.9)
    for _ in range(5):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = other.grad = torch.randn(mine.shape, generator=generator)
        optimizer.step()
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.detach(), other.detach(), rtol=1e-5, atol=1e-6)
        assert optimizer.state[mine].keys() <= reference.state[other].keys()


def test_only_the_complete_older_table_has_the_older_meaning() -> None:
    assert not older().damped
    assert older().decay == 0.95
    assert RMSPropConfig(lr=1e-3, momentum=0.9, eps=1e-6).damped
    with pytest.raises(ValueError, match="alpha"):
        RMSPropConfig.model_validate({"type": "rmsprop", "alpha": 0.9})
