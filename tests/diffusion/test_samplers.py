"""Samplers against Gaussian data N(mean, std²), whose velocity, flow and chain are known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from leandit.diffusion import (
    DDIMConfig,
    DDPMSamplerConfig,
    Denoised,
    EulerConfig,
    HeunConfig,
    HeunSDEConfig,
    LinearPath,
    SamplerConfig,
    VariancePreservingPath,
    build_sampler,
    initial_noise,
)
from leandit.errors import LeanDiTError
from leandit.random import Stream, normal

MEAN = torch.tensor([0.7, -1.2, 0.1, 0.4], dtype=torch.float64).reshape(4, 1, 1)
STD = torch.tensor([0.5, 1.0, 1.5, 0.8], dtype=torch.float64).reshape(4, 1, 1)
PATHS = {"linear": LinearPath(), "vp": VariancePreservingPath()}
BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHABAR = np.cumprod(1 - BETAS)
STOCHASTIC = [
    DDPMSamplerConfig(steps=6),
    DDPMSamplerConfig(steps=6, variance="large"),
    DDPMSamplerConfig(steps=6, variance="learned"),
    DDIMConfig(steps=6, eta=0.7),
    HeunSDEConfig(steps=6),
]


def gaussian(path, fraction=None):
    """The exact denoiser of the data: v = α' E[x0 | x] + σ' E[ε | x]."""

    def denoise(x, t, cond):
        c = [v.reshape(-1, 1, 1, 1) for v in path.coefficients(t.double())]
        alpha, sigma, alpha_slope, sigma_slope = c
        gap = (x.double() - alpha * MEAN) / ((alpha * STD).square() + sigma.square())
        velocity = alpha_slope * (MEAN + alpha * STD.square() * gap) + sigma_slope * sigma * gap
        return Denoised(velocity, None if fraction is None else torch.full_like(velocity, fraction))

    return denoise


def exact_flow(path, noise):
    """The flow is affine and carries the marginal at t = 1 onto the data, so it keeps standard scores."""
    c = path.coefficients(torch.tensor(1.0, dtype=torch.float64))
    spread = ((c.alpha * STD).square() + c.sigma.square()).sqrt()
    return MEAN + STD * (noise.double() - c.alpha * MEAN) / spread


def errors(config, path, steps):
    seeds = range(8)
    noise = initial_noise(seeds, (4, 2, 2))
    want = exact_flow(path, noise)
    for n in steps:
        sampler = build_sampler(config.replace(steps=n), path)
        yield (sampler(gaussian(path), noise, None, seeds) - want).square().mean().sqrt().item()


def slope(config, path, steps):
    return -np.polyfit(np.log(steps), np.log(list(errors(config, path, steps))), 1)[0]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(
    ("config", "order"),
    [(EulerConfig(), 1), (EulerConfig(shift=2.0), 1), (HeunConfig(), 2), (DDIMConfig(), 1)],
)
def test_order_of_convergence_to_the_exact_flow(name, config, order):
    steps = [20, 40, 50, 100] if order == 2 else [50, 100, 200]
    assert slope(config, PATHS[name], steps) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("config", [EulerConfig(), HeunConfig(), DDIMConfig()])
def test_many_steps_reach_the_exact_flow(name, config):
    assert next(errors(config, PATHS[name], [500])) < (2e-4 if isinstance(config, HeunConfig) else 2e-2)


def chain_moments(indices, variance, fraction=0.3):
    """Exact mean and variance after each ancestral step, by the published formulas, per channel."""
    mu, s = MEAN.flatten().numpy(), STD.flatten().numpy()
    mean, var = np.zeros(4), np.ones(4)
    for k, i in enumerate(indices):
        now, before = ALPHABAR[i], ALPHABAR[indices[k + 1]] if k + 1 < len(indices) else 1.0
        beta = 1 - now / before
        small = beta * (1 - before) / (1 - now)
        gain = math.sqrt(now) * s**2 / (now * s**2 + 1 - now)
        offset = mu - gain * math.sqrt(now) * mu
        on_x0 = math.sqrt(before) * beta / (1 - now)
        on_x = math.sqrt(now / before) * (1 - before) / (1 - now)
        added = 0.0
        if k + 1 < len(indices):
            learned = math.exp(fraction * math.log(beta) + (1 - fraction) * math.log(small))
            added = {"small": small, "large": beta, "learned": learned}[variance]
        mean, var = (on_x0 * gain + on_x) * mean + on_x0 * offset, (on_x0 * gain + on_x) ** 2 * var + added
    return mean, var


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_ancestral_chain_has_its_exact_mean_and_variance(variance):
    config = DDPMSamplerConfig(steps=8, variance=variance)
    seeds, path = range(200), PATHS["vp"]
    x = build_sampler(config, path)(gaussian(path, 0.3), initial_noise(seeds, (4, 16, 16)), None, seeds)
    mean, var = chain_moments([999, 856, 714, 571, 428, 285, 143, 0], variance)
    count, x = 200 * 256, x.double().numpy()
    assert (np.abs(x.mean((0, 2, 3)) - mean) < 4.5 * np.sqrt(var / count)).all()
    assert (np.abs(x.var((0, 2, 3)) / var - 1) < 4.5 * math.sqrt(2 / count)).all()


def test_ancestral_sampling_reaches_the_data_distribution():
    seeds, path = range(24), PATHS["vp"]
    x = build_sampler(DDPMSamplerConfig(steps=250), path)(
        gaussian(path), initial_noise(seeds, (4, 24, 24)), None, seeds
    )
    np.testing.assert_allclose(x.mean((0, 2, 3)), MEAN.flatten(), atol=0.06)
    np.testing.assert_allclose(x.std((0, 2, 3)), STD.flatten(), rtol=0.03)


def test_ddim_with_full_noise_is_the_ancestral_sampler():
    seeds, path = [3, 1], PATHS["vp"]
    noise = initial_noise(seeds, (4, 3, 3))
    ddim, ddpm = (build_sampler(c, path) for c in (DDIMConfig(steps=20, eta=1.0), DDPMSamplerConfig(steps=20)))
    torch.testing.assert_close(
        ddim(gaussian(path), noise, None, seeds),
        ddpm(gaussian(path), noise, None, seeds),
        rtol=1e-4,
        atol=1e-4,
    )


def test_stochastic_ddim_keeps_the_marginals_of_the_linear_path():
    seeds, path = range(24), PATHS["linear"]
    x = build_sampler(DDIMConfig(steps=200, eta=1.0), path)(
        gaussian(path), initial_noise(seeds, (4, 24, 24)), None, seeds
    )
    np.testing.assert_allclose(x.mean((0, 2, 3)), MEAN.flatten(), atol=0.06)
    np.testing.assert_allclose(x.std((0, 2, 3)), STD.flatten(), rtol=0.03)


@pytest.mark.parametrize("name", PATHS)
def test_stochastic_heun_keeps_the_marginals(name):
    seeds, path = range(24), PATHS[name]
    x = build_sampler(HeunSDEConfig(steps=60, churn=1.5), path)(
        gaussian(path), initial_noise(seeds, (4, 24, 24)), None, seeds
    )
    np.testing.assert_allclose(x.mean((0, 2, 3)), MEAN.flatten(), atol=0.06)
    np.testing.assert_allclose(x.std((0, 2, 3)), STD.flatten(), rtol=0.03)


@pytest.mark.parametrize("name", PATHS)
def test_stochastic_heun_without_churn_is_heun_and_with_it_another_path(name):
    path, noise = PATHS[name], initial_noise([1, 2], (4, 2, 2))

    def draw(config):
        return build_sampler(config, path)(gaussian(path), noise, None, [1, 2])

    torch.testing.assert_close(draw(HeunSDEConfig(steps=9, churn=0.0)), draw(HeunConfig(steps=9)))
    assert not torch.allclose(draw(HeunSDEConfig(steps=9)), draw(HeunConfig(steps=9)), atol=0.1)


@pytest.mark.parametrize("config", [*STOCHASTIC, EulerConfig(steps=6), HeunConfig(steps=6)])
def test_one_seed_is_one_sample_in_any_batch(config):
    sampler, denoiser = build_sampler(config, PATHS["vp"]), gaussian(PATHS["vp"], 0.5)
    together = sampler(denoiser, initial_noise([5, 6, 7], (4, 2, 2)), None, [5, 6, 7])
    alone = sampler(denoiser, initial_noise([6], (4, 2, 2)), None, [6])
    assert torch.equal(together[1], alone[0])
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("name", PATHS)
def test_ddim_adds_eta_times_the_published_noise(name):
    path, eta = PATHS[name], 0.6
    noise, states = initial_noise([4], (4, 2, 2)), []
    sampler = build_sampler(DDIMConfig(steps=3, eta=eta), path)
    sampler(gaussian(path), noise, None, [4], observe=lambda k, t, x: states.append((t, x)))
    (t, x), (s, after) = states[1:3]
    now, then = (path.coefficients(v.double()) for v in (t, s))
    parts = path.convert("velocity", gaussian(path)(x, t, None).velocity, x.double(), t.double())
    forward = now.sigma**2 - (now.alpha / then.alpha * then.sigma) ** 2
    std = eta * then.sigma / now.sigma * forward.sqrt()
    z = torch.from_numpy(normal(4, Stream.SAMPLER_STEP, [0], (4, 2, 2), step=1))
    want = then.alpha * parts.x0 + (then.sigma**2 - std**2).sqrt() * parts.eps + std * z
    torch.testing.assert_close(after.double(), want, rtol=1e-5, atol=1e-5)


def test_velocities_of_a_bfloat16_network_are_combined_in_float32():
    def rounded(x, t, cond):
        return Denoised(gaussian(PATHS["linear"])(x, t, cond).velocity.bfloat16())

    def widened(x, t, cond):
        return Denoised(rounded(x, t, cond).velocity.float())

    sampler, noise = build_sampler(HeunConfig(steps=5), PATHS["linear"]), initial_noise([1], (4, 2, 2))
    assert torch.equal(sampler(rounded, noise, None, [1]), sampler(widened, noise, None, [1]))


def test_noise_comes_from_the_seed_and_differs_between_steps():
    seeds, path = [11], PATHS["vp"]
    noise = initial_noise(seeds, (4, 2, 2))
    assert np.array_equal(noise[0], normal(11, Stream.SAMPLE, [0], (4, 2, 2))[0])
    states = []
    sampler = build_sampler(DDPMSamplerConfig(steps=3, variance="large"), path)
    sampler(gaussian(path), noise, None, seeds, observe=lambda k, t, x: states.append((k, t, x)))
    for k in range(2):
        (_, t, x), (_, s, after) = states[k : k + 2]
        now, before = (ALPHABAR[round(v.item() * 1000) - 1] for v in (t, s))
        beta = 1 - now / before
        parts = path.convert("velocity", gaussian(path)(x, t, None).velocity, x, t)
        mean = math.sqrt(before) * beta / (1 - now) * parts.x0
        mean = mean + math.sqrt(now / before) * (1 - before) / (1 - now) * x
        z = torch.from_numpy(normal(11, Stream.SAMPLER_STEP, [0], (4, 2, 2), step=k))
        torch.testing.assert_close(after, (mean + math.sqrt(beta) * z).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [*STOCHASTIC, EulerConfig(steps=6, shift=3.0), HeunConfig(steps=6)])
def test_progress_and_observe_see_every_step(config):
    done, seen = [], []
    sampler = build_sampler(config, PATHS["vp"])
    x = sampler(
        gaussian(PATHS["vp"], 0.5),
        initial_noise([1, 2], (4, 2, 2)),
        None,
        [1, 2],
        progress=lambda k, n: done.append((k, n)),
        observe=lambda k, t, x: seen.append((k, t, x)),
    )
    assert done == [(k, 6) for k in range(1, 7)]
    assert [k for k, _, _ in seen] == list(range(7))
    times = torch.stack([t for _, t, _ in seen])
    assert times.shape == (7, 2)
    assert (times.diff(dim=0) < 0).all()
    assert (times[0] == 1).all()
    assert (times[-1] == 0).all()
    assert seen[-1][2] is x


def test_grid_is_respaced_evenly_with_both_ends():
    times = build_sampler(DDPMSamplerConfig(steps=4), PATHS["vp"]).times
    assert times == (1.0, 0.667, 0.334, 0.001, 0.0)
    assert len(build_sampler(DDIMConfig(steps=1000), PATHS["vp"]).times) == 1001
    assert build_sampler(DDIMConfig(steps=1), PATHS["vp"]).times == (1.0, 0.0)
    shifted = build_sampler(DDIMConfig(steps=10, shift=3.0), PATHS["vp"]).times
    assert shifted[5] == round(3 * 0.445 / (1 + 2 * 0.445), 3)


def test_evaluations_per_step_and_none_at_the_data_end():
    for config, count in ((EulerConfig(steps=5), 5), (HeunConfig(steps=5), 9)):
        times = []

        def denoise(x, t, cond, times=times):
            times.append(t[0].item())
            return Denoised(torch.zeros_like(x))

        build_sampler(config, PATHS["linear"])(denoise, torch.zeros(1, 4, 2, 2), None, [0])
        assert len(times) == count
        assert min(times) > 0


@pytest.mark.parametrize("config", [*STOCHASTIC, EulerConfig(steps=3), HeunConfig(steps=3)])
def test_states_stay_float32_without_gradient_for_a_bfloat16_network(config):
    weight = torch.ones((), requires_grad=True)

    def denoise(x, t, cond):
        assert x.dtype == t.dtype == torch.float32
        v = (weight * x).bfloat16()
        return Denoised(v, v.sigmoid())

    x = build_sampler(config, PATHS["vp"])(denoise, initial_noise([1], (4, 2, 2)).bfloat16(), None, [1])
    assert x.dtype == torch.float32
    assert not x.requires_grad


def test_mistakes_name_the_way_out():
    with pytest.raises(LeanDiTError, match="eta=1"):
        build_sampler(DDPMSamplerConfig(), PATHS["linear"])
    with pytest.raises(LeanDiTError, match="1000 or fewer"):
        build_sampler(DDIMConfig(steps=1001), PATHS["vp"])
    with pytest.raises(LeanDiTError, match="fewer steps or a shift"):
        build_sampler(DDIMConfig(steps=900, shift=4.0), PATHS["vp"])
    noise = torch.zeros(2, 4, 2, 2)
    with pytest.raises(LeanDiTError, match="one seed per sample"):
        build_sampler(EulerConfig(), PATHS["linear"])(gaussian(PATHS["linear"]), noise, None, [1])
    with pytest.raises(LeanDiTError, match="learned sigma"):
        build_sampler(DDPMSamplerConfig(variance="learned"), PATHS["vp"])(gaussian(PATHS["vp"]), noise, None, [1, 2])


@pytest.mark.parametrize("config", [EulerConfig(steps=3), HeunConfig(shift=2), DDPMSamplerConfig(), DDIMConfig()])
def test_configs_come_back_from_data(config):
    assert TypeAdapter(SamplerConfig).validate_python(config.model_dump()) == config
