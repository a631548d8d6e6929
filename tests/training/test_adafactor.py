"""Adafactor against its formula in plain loops over Python's numbers, and against torch's own."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from leandit.run import AdafactorConfig
from leandit.training.adafactor import Adafactor

SHAPES = [(5, 7), (7, 3), (2, 4, 6), (1, 6), (6, 1), (8,), (1,), ()]
RATES = [0.01, 0.03, 0.02, 0.02, 0.001, 0.0]
OPTIONS = st.fixed_dictionaries(
    {
        "beta1": st.sampled_from([None, 0.0, 0.9]),
        "beta2": st.sampled_from([None, 0.9, 0.999]),
        "beta2_power": st.sampled_from([-0.8, -0.5]),
        "clip_threshold": st.sampled_from([None, 0.5, 1.0]),
        "scale_by_parameter": st.booleans(),
        "min_scale": st.sampled_from([1e-3, 0.5]),
        "eps": st.sampled_from([1e-30, 1e-3]),
        "min_factored_size": st.sampled_from([None, 1, 2, 4, 6]),
        "weight_decay": st.sampled_from([0.0, 0.1]),
    }
)


class Loops:
    """One tensor as a flat list of Python's floats, moved by the formula."""

    def __init__(self, start: Tensor, options: dict[str, Any]) -> None:
        self.shape, self.o = tuple(start.shape), options
        self.w = start.reshape(-1).tolist()
        least = options["min_factored_size"]
        self.factored = len(self.shape) >= 2 and least is not None and min(self.shape[-2:]) >= least
        self.second: dict[tuple[int, ...], float] = {}
        self.first = [0.0] * len(self.w)
        self.t = 0

    def step(self, gradient: Tensor, rate: float) -> None:
        self.t += 1
        o, g = self.o, gradient.reshape(-1).tolist()
        b2 = 1 - self.t ** o["beta2_power"] if o["beta2"] is None else o["beta2"]
        square = [x * x + o["eps"] for x in g]
        u = self._factored(g, square, b2) if self.factored else self._whole(g, square, b2)
        if o["clip_threshold"] is not None:
            rms = math.sqrt(sum(x * x for x in u) / len(u))
            u = [x / max(1.0, rms / o["clip_threshold"]) for x in u]
        scale = max(o["min_scale"], math.sqrt(sum(x * x for x in self.w) / len(self.w)))
        u = [rate * x * (scale if o["scale_by_parameter"] else 1) for x in u]
        if o["beta1"] is not None:
            self.first = u = [o["beta1"] * m + (1 - o["beta1"]) * x for m, x in zip(self.first, u, strict=True)]
        self.w = [w - rate * o["weight_decay"] * w - x for w, x in zip(self.w, u, strict=True)]

    def _average(self, key: tuple[int, ...], value: float, b2: float) -> float:
        self.second[key] = b2 * self.second.get(key, 0.0) + (1 - b2) * value
        return self.second[key]

    def _whole(self, g: list[float], square: list[float], b2: float) -> list[float]:
        return [x / math.sqrt(self._average((i,), s, b2)) for i, (x, s) in enumerate(zip(g, square, strict=True))]

    def _factored(self, g: list[float], square: list[float], b2: float) -> list[float]:
        *outer, n, m = self.shape
        u = list(g)
        for matrix in range(math.prod(outer)):
            at = {(i, j): matrix * n * m + i * m + j for i, j in product(range(n), range(m))}
            rows = [self._average((0, matrix, i), sum(square[at[i, j]] for j in range(m)) / m, b2) for i in range(n)]
            columns = [self._average((1, matrix, j), sum(square[at[i, j]] for i in range(n)) / n, b2) for j in range(m)]
            for (i, j), place in at.items():
                u[place] = g[place] / math.sqrt(rows[i] * columns[j] / (sum(rows) / n))
        return u


@settings(max_examples=40, deadline=None)
@given(options=OPTIONS, seed=st.integers(0, 2**16), scale=st.sampled_from([1e-4, 1.0, 30.0]), zero=st.booleans())
def test_it_is_the_formula_in_loops(options: dict[str, Any], seed: int, scale: float, zero: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    starts = [torch.randn(shape, generator=generator, dtype=torch.float64) * (not zero) for shape in SHAPES]
    parameters = [nn.Parameter(start.clone()) for start in starts]
    loops = [Loops(start, options) for start in starts]
    optimizer = Adafactor(parameters, lr=1.0, **options)
    for number, rate in enumerate(RATES):
        optimizer.param_groups[0]["lr"] = rate
        for place, (parameter, loop) in enumerate(zip(parameters, loops, strict=True)):
            gradient = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale
            # The first parameter has no gradient in the first step: its own count of steps starts later.
            parameter.grad = None if number == place == 0 else gradient
            if parameter.grad is not None:
                loop.step(gradient, rate)
        optimizer.step()
    for parameter, loop in zip(parameters, loops, strict=True):
        expected = torch.tensor(loop.w, dtype=torch.float64).reshape(loop.shape)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-10, atol=1e-12)


def test_the_defaults_are_what_dit_air_states_and_axlearn_has() -> None:
    options = AdafactorConfig().model_dump(exclude={"type"})
    expected = {"lr": 1e-4, "beta1": 0.9, "beta2": 0.999, "clip_threshold": 1.0, "scale_by_parameter": False}
    assert expected.items() <= options.items()
    assert (options["eps"], options["min_factored_size"], options["weight_decay"]) == (1e-30, 1, 0)


def test_the_state_of_a_matrix_is_a_row_a_column_and_the_first_moment() -> None:
    parameters = [nn.Parameter(torch.ones(shape)) for shape in ((40, 30), (3, 40, 30), (40,), (2, 30))]
    optimizer = Adafactor(parameters, **AdafactorConfig(min_factored_size=3).model_dump(exclude={"type"}))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    sizes = [{slot: value.numel() for slot, value in optimizer.state[p].items()} for p in parameters]
    assert sizes == [
        {"row_var": 40, "col_var": 30, "momentum": 1200},
        {"row_var": 120, "col_var": 90, "momentum": 3600},
        {"variance": 40, "momentum": 40},
        {"variance": 60, "momentum": 60},
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gradient", [0.0, 1e-18, 1e18])
def test_rows_without_gradients_are_not_divided_by_zero(gradient: float, dtype: torch.dtype) -> None:
    parameter = nn.Parameter(torch.ones(4, 3, dtype=dtype))
    optimizer = Adafactor([parameter], **AdafactorConfig(lr=0.1).model_dump(exclude={"type"}))
    parameter.grad = torch.zeros_like(parameter)
    parameter.grad[0, 0] = gradient
    optimizer.step()
    assert parameter.isfinite().all()
    assert (parameter[1:] == 1).all()
    assert (parameter[0, 0] < 1) == (gradient > 0)


def older(**changes: float) -> AdafactorConfig:
    """The complete table of a run that was made with torch's Adafactor."""
    table = {"type": "adafactor", "lr": 1e-3, "beta2_decay": -0.8, "clip_threshold": 1.0, "weight_decay": 0.0}
    return AdafactorConfig.model_validate({**table, **changes})


def test_an_older_run_is_read_as_the_torch_optimiser_that_it_had() -> None:
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    starts[0].zero_()
    ours, theirs = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    config = older(weight_decay=0.1, clip_threshold=1.5, beta2_decay=-0.6)
    optimizer = Adafactor(ours, **config.model_dump(exclude={"type"}))
    reference = torch.optim.Adafactor(theirs, lr=1e-3, beta2_decay=-0.6, d=1.5, weight_decay=0.1)
    for _ in range(5):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = other.grad = torch.randn(mine.shape, generator=generator, dtype=torch.float64) + 0.1
        optimizer.step()
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.detach(), other.detach(), rtol=1e-9, atol=1e-10)
        assert {k: v.shape for k, v in optimizer.state[mine].items()} == {
            k: v.shape for k, v in reference.state[other].items()
        }


def test_only_the_complete_older_table_has_the_older_meaning() -> None:
    assert older().scale_by_parameter
    assert older().beta1 is older().beta2 is None
    assert not AdafactorConfig(lr=1e-3).scale_by_parameter
    with pytest.raises(ValueError, match="beta2_decay"):
        AdafactorConfig.model_validate({"type": "adafactor", "beta2_decay": -0.8})
