from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from pydantic import TypeAdapter

from leandit.diffusion import (
    DiscreteTimesteps,
    LinearPath,
    LogitNormalTimesteps,
    TimestepConfig,
    UniformTimesteps,
    shift_time,
    size_shift,
)

U = torch.tensor([1e-6, 0.01, 0.25, 0.5, 0.9, 0.999999], dtype=torch.float64)


def test_logit_normal_has_the_quantiles_of_its_definition():
    config = LogitNormalTimesteps(loc=0.7, scale=1.3)
    want = [1 / (1 + math.exp(-(0.7 + 1.3 * NormalDist().inv_cdf(u)))) for u in U.tolist()]
    torch.testing.assert_close(config.draw(U), torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=0)


def test_uniform_is_the_uniform():
    assert torch.equal(UniformTimesteps().draw(U), U)


def test_discrete_gives_every_grid_point_the_same_share():
    u = (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000
    values, counts = DiscreteTimesteps(num_timesteps=50).draw(u).unique(return_counts=True)
    torch.testing.assert_close(values, torch.arange(1, 51, dtype=torch.float64) / 50)
    assert (counts == 100).all()
    assert DiscreteTimesteps(num_timesteps=50).draw(torch.tensor([0.0, 1 - 1e-16])).tolist() == pytest.approx([0.02, 1])


@pytest.mark.parametrize("config", [LogitNormalTimesteps(), UniformTimesteps(), DiscreteTimesteps()])
def test_shift_moves_logit_t_by_its_logarithm(config):
    shifted = config.replace(shift=3.0).draw(U[1:4])
    torch.testing.assert_close(torch.logit(shifted), torch.logit(config.draw(U[1:4])) + math.log(3))


def test_shift_keeps_the_ends_and_is_undone_by_its_inverse():
    assert [shift_time(t, 3.0) for t in (0.0, 1.0)] == [0, 1]
    assert shift_time(shift_time(0.3, 4.0), 0.25) == pytest.approx(0.3)


@pytest.mark.parametrize("config", [LogitNormalTimesteps(), UniformTimesteps(), DiscreteTimesteps()])
def test_extreme_uniforms_stay_in_range_and_configs_come_back_from_data(config):
    t = config.draw(torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert ((t >= 0) & (t <= 1)).all()
    assert TypeAdapter(TimestepConfig).validate_python(config.model_dump()) == config


@pytest.mark.parametrize(("side", "t"), [(2, 0.2), (2, 0.5), (2, 0.9), (4, 0.5)])
def test_a_shifted_larger_picture_averaged_is_as_noisy_as_the_smaller_one(side, t):
    """Averages blocks of x_t, of a picture that is constant in them, its data and its noise apart."""
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(400, 8, 8, generator=generator, dtype=torch.float64)
    large = small.repeat_interleave(side, 1).repeat_interleave(side, 2)
    eps = torch.randn(large.shape, generator=generator, dtype=torch.float64)
    shifted = torch.full((400,), shift_time(t, size_shift(8, 8 * side)), dtype=torch.float64)
    nothing = torch.zeros_like(large)
    parts = (LinearPath().mix(large, nothing, shifted), LinearPath().mix(nothing, eps, shifted))
    data, noise = (part.view(400, 8, side, 8, side).mean((2, 4)) for part in parts)
    log_snr = 2 * math.log(data.std() / small.std() / noise.std())
    assert log_snr == pytest.approx(2 * math.log((1 - t) / t), abs=0.03)
    assert log_snr != pytest.approx(2 * math.log(1 / shifted[0] - 1), abs=0.5)


def test_times_drawn_with_the_shift_of_the_size_drop_log_snr_alike():
    assert size_shift(32, 64) == size_shift((16, 64), (64, 64)) == size_shift((24, 40), (48, 80)) == 2
    assert size_shift(3, 7) == 7 / 3
    config = LogitNormalTimesteps(shift=size_shift(32, 64))
    assert config.shift == 2
    before, after = LogitNormalTimesteps().draw(U[1:4]), config.draw(U[1:4])
    torch.testing.assert_close(
        2 * torch.logit(after) - 2 * torch.logit(before), torch.full((3,), 2 * math.log(2)).double()
    )
