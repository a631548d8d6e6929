from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from pydantic import ValidationError

from leandit.diffusion import Denoised, GuidanceConfig, guided


@dataclass
class Label:
    value: torch.Tensor

    def stack(self, other):
        return Label(torch.cat([self.value, other.value]))


class Recorder:
    """v = label * (x + t); keeps the batch size of every call."""

    def __init__(self, learned=False):
        self.sizes, self.learned = [], learned

    def __call__(self, x, t, cond):
        self.sizes.append(len(x))
        label = cond.value.reshape(-1, 1, 1, 1)
        return Denoised(label * (x + t.reshape(-1, 1, 1, 1)), label * x if self.learned else None)


X = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
COND, NULL = Label(torch.tensor([2.0, 3.0])), Label(torch.tensor([0.5, 0.5]))


def test_guidance_extrapolates_all_channels_in_one_pass():
    denoiser = Recorder(learned=True)
    t = torch.full((2,), 0.4)
    result = guided(denoiser, GuidanceConfig(scale=4.0), NULL)(X, t, COND)
    for b, label in enumerate([2.0, 3.0]):
        torch.testing.assert_close(result.velocity[b], (0.5 + 4.0 * (label - 0.5)) * (X[b] + 0.4))
        torch.testing.assert_close(result.variance[b], label * X[b])
    assert denoiser.sizes == [4]


@pytest.mark.parametrize(("t", "acts"), [(0.09, False), (0.1, True), (0.5, True), (0.7, True), (0.71, False)])
def test_guidance_acts_only_within_its_interval(t, acts):
    denoiser = Recorder()
    config = GuidanceConfig(scale=2.0, interval=(0.1, 0.7))
    result = guided(denoiser, config, NULL)(X, torch.full((2,), t), COND)
    weights = [3.5, 5.5] if acts else [2.0, 3.0]
    for b, weight in enumerate(weights):
        torch.testing.assert_close(result.velocity[b], weight * (X[b] + t))
    assert denoiser.sizes == [4 if acts else 2]


def test_each_sample_follows_its_own_time():
    config = GuidanceConfig(scale=2.0, interval=(0.0, 0.5))
    result = guided(Recorder(), config, NULL)(X, torch.tensor([0.3, 0.6]), COND)
    torch.testing.assert_close(result.velocity[0], 3.5 * (X[0] + 0.3))
    torch.testing.assert_close(result.velocity[1], 3.0 * (X[1] + 0.6))


def test_scale_one_costs_one_plain_pass_and_zero_is_unconditional():
    denoiser = Recorder()
    t = torch.full((2,), 0.4)
    torch.testing.assert_close(
        guided(denoiser, GuidanceConfig(), NULL)(X, t, COND).velocity, denoiser(X, t, COND).velocity
    )
    assert denoiser.sizes == [2, 2]
    zero = guided(denoiser, GuidanceConfig(scale=0), NULL)(X, t, COND)
    torch.testing.assert_close(zero.velocity, 0.5 * (X + 0.4))


def test_a_condition_is_joined_with_the_null_condition_once_for_all_steps():
    joined = []

    class Counted(Label):
        def stack(self, other):
            joined.append(self)
            return super().stack(other)

    first, second = Counted(torch.tensor([2.0, 3.0])), Counted(torch.tensor([4.0, 5.0]))
    denoise = guided(Recorder(), GuidanceConfig(scale=2.0), NULL)
    results = [denoise(X, torch.full((2,), t), cond) for cond in (first, second) for t in (0.9, 0.4)]
    assert joined == [first, second]
    torch.testing.assert_close(results[-1].velocity[1], (0.5 + 2.0 * 4.5) * (X[1] + 0.4))


@pytest.mark.parametrize("interval", [(0.6, 0.2), (-0.1, 0.5), (0.5, 1.1)])
def test_impossible_intervals_are_refused(interval):
    with pytest.raises(ValidationError, match="interval is"):
        GuidanceConfig(interval=interval)
