from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from leandit.diffusion import (
    DDPMConfig,
    Noised,
    ObjectiveConfig,
    RectifiedFlowConfig,
    UniformTimesteps,
    build_objective,
)

BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHABAR = np.cumprod(1 - BETAS)


def tensors(*shape, count=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=g, dtype=torch.float64) for _ in range(count)]


def noised(objective, u, shape=(2, 2, 3)):
    x0, eps, _ = tensors(len(u), *shape)
    return objective.draw(x0, torch.tensor(u, dtype=torch.float64), eps)


def looped_mse(prediction, target):
    result = []
    for p, q in zip(prediction, target, strict=True):
        squares = [(a - b) ** 2 for a, b in zip(p.flatten().tolist(), q.flatten().tolist(), strict=True)]
        result.append(sum(squares) / len(squares))
    return torch.tensor(result, dtype=torch.float64)


def test_rectified_flow_velocity_loss():
    objective = build_objective(RectifiedFlowConfig(timesteps=UniformTimesteps()))
    batch = noised(objective, [0.1, 0.5, 0.9])
    (prediction,) = tensors(3, 2, 2, 3, count=1, seed=1)
    for b, t in enumerate([0.1, 0.5, 0.9]):
        torch.testing.assert_close(batch.x_t[b], (1 - t) * batch.x0[b] + t * batch.eps[b])
    want = looped_mse(prediction, batch.eps - batch.x0)
    torch.testing.assert_close(objective.loss(prediction, batch), {"mse": want})
    torch.testing.assert_close(objective.auxiliary_loss(prediction, batch), want)
    assert objective.denoised(prediction, batch.x_t, batch.t).velocity is prediction
    assert objective.out_channels(4) == 4


def test_x0_prediction_is_weighted_by_the_inverse_square_of_the_clamped_time():
    config = RectifiedFlowConfig(prediction="x0", t_min=0.1, timesteps=UniformTimesteps())
    objective = build_objective(config)
    times = [0.0, 0.02, 0.1, 0.5]
    batch = noised(objective, times)
    (prediction,) = tensors(4, 2, 2, 3, count=1, seed=1)
    plain = looped_mse(prediction, batch.x0)
    want = plain / torch.tensor([max(t, 0.1) ** 2 for t in times], dtype=torch.float64)
    torch.testing.assert_close(objective.loss(prediction, batch)["mse"], want)
    perfect = objective.denoised(batch.x0, batch.x_t, batch.t).velocity
    torch.testing.assert_close(perfect[2:], (batch.eps - batch.x0)[2:])
    assert objective.loss(batch.x0, batch)["mse"].abs().max() == 0


@pytest.mark.parametrize("prediction", ["epsilon", "velocity"])
@pytest.mark.parametrize("learned", [False, True])
def test_ddpm_mse_and_conversion_to_velocity(prediction, learned):
    objective = build_objective(DDPMConfig(prediction=prediction, learned_sigma=learned))
    indices = [0, 1, 499, 999]
    batch = noised(objective, [(i + 0.5) / 1000 for i in indices])
    alpha, sigma = (torch.tensor(np.sqrt(a[indices])).reshape(-1, 1, 1, 1) for a in (ALPHABAR, 1 - ALPHABAR))
    torch.testing.assert_close(batch.x_t, alpha * batch.x0 + sigma * batch.eps)
    target = batch.eps if prediction == "epsilon" else alpha * batch.eps - sigma * batch.x0
    raw, guess = tensors(4, 2, 2, 3, count=2, seed=1)
    output = torch.cat([guess, raw], 1) if learned else guess
    losses = objective.loss(output, batch)
    torch.testing.assert_close(losses["mse"], looped_mse(guess, target))
    torch.testing.assert_close(objective.auxiliary_loss(objective.mean_part(output), batch), losses["mse"])
    assert losses.keys() == ({"mse", "vlb"} if learned else {"mse"})
    assert objective.out_channels(2) == output.shape[1]
    assert objective.out_channels(3) == (6 if learned else 3)
    exact = torch.cat([target, raw], 1) if learned else target
    result = objective.denoised(exact, batch.x_t, batch.t)
    torch.testing.assert_close(result.velocity, objective.path.velocity(batch.x0, batch.eps, batch.t))
    if learned:
        torch.testing.assert_close(result.variance, (raw + 1) / 2)
    else:
        assert result.variance is None


def integral(y, x):
    return ((y[1:] + y[:-1]) / 2 * np.diff(x)).sum()


def numeric_kl(mean_p, std_p, mean_q, std_q):
    x = np.linspace(mean_p - 12 * std_p, mean_p + 12 * std_p, 20_001)
    log_p, log_q = (
        -0.5 * ((x - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi)) for m, s in ((mean_p, std_p), (mean_q, std_q))
    )
    return integral(np.exp(log_p) * (log_p - log_q), x)


def looped_bound(index, x_t, x0, eps_hat, raw):
    """The bound of one element in bits, from the published formulas, by quadrature."""
    alphabar, beta = ALPHABAR[index], BETAS[index]
    before = ALPHABAR[index - 1] if index else 1.0
    guess = (x_t - math.sqrt(1 - alphabar) * eps_hat) / math.sqrt(alphabar)
    small = BETAS[1] * (1 - ALPHABAR[0]) / (1 - ALPHABAR[1])
    small = beta * (1 - before) / (1 - alphabar) if index else small
    std = math.sqrt(math.exp((raw + 1) / 2 * math.log(beta) + (1 - raw) / 2 * math.log(small)))
    if index == 0:
        x = np.linspace(x0 - 1 / 255, x0 + 1 / 255, 20_001)
        density = np.exp(-0.5 * ((x - guess) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        return -math.log2(integral(density, x))
    on_x0 = math.sqrt(before) * beta / (1 - alphabar)
    on_xt = math.sqrt(1 - beta) * (1 - before) / (1 - alphabar)
    return numeric_kl(on_x0 * x0 + on_xt * x_t, math.sqrt(small), on_x0 * guess + on_xt * x_t, std) / math.log(2)


def test_learned_sigma_bound_is_the_kl_divergence():
    objective = build_objective(DDPMConfig(learned_sigma=True))
    indices = [0, 1, 2, 50, 999]
    batch = noised(objective, [(i + 0.5) / 1000 for i in indices], shape=(1, 1, 3))
    (raw,) = tensors(5, 1, 1, 3, count=1, seed=3)
    eps_hat = batch.eps + 0.3 * raw.flip(0)
    got = objective.loss(torch.cat([eps_hat, raw.tanh()], 1), batch)["vlb"]
    for b, index in enumerate(indices):
        columns = zip(*(v[b].flatten().tolist() for v in (batch.x_t, batch.x0, eps_hat, raw.tanh())), strict=True)
        assert got[b].item() == pytest.approx(np.mean([looped_bound(index, *c) for c in columns]), rel=1e-5)


def test_every_grid_point_is_recognised_in_float32():
    objective = build_objective(DDPMConfig(learned_sigma=True))
    u = [(i + 0.5) / 1000 for i in range(1000)]
    wide = noised(objective, u, shape=(1, 2, 2))
    narrow = Noised(*(v.float() for v in (wide.x_t, wide.t, wide.x0, wide.eps)))
    # An error of 1 in ε costs about β / (2 (1 - β) (1 - ᾱ)), over 0.1 % apart between neighbours.
    output = torch.cat([wide.eps + 1, torch.ones_like(wide.eps)], 1)
    want = objective.loss(output, wide)["vlb"]
    got = objective.loss(output.float(), narrow)["vlb"].double()
    torch.testing.assert_close(got, want, rtol=3e-4, atol=0)


def test_bound_trains_the_variance_and_not_the_mean():
    objective = build_objective(DDPMConfig(learned_sigma=True))
    batch = noised(objective, [0.0, 0.3, 0.9])
    prediction = torch.randn(3, 4, 2, 3, requires_grad=True, dtype=torch.float64)
    objective.loss(prediction, batch)["vlb"].sum().backward()
    assert prediction.grad[:, :2].abs().max() == 0
    assert torch.isfinite(prediction.grad).all()
    assert (prediction.grad[1:, 2:] != 0).all()


def test_bound_is_scaled_with_the_length_of_the_chain():
    config = DDPMConfig(num_timesteps=100, learned_sigma=True)
    objective = build_objective(config)
    batch = noised(objective, [0.505])
    # Exact ε and the small variance, β̃, leave nothing; the large one leaves KL(β̃ || β), times 100 / 1000.
    ones = torch.ones_like(batch.eps)
    assert objective.loss(torch.cat([batch.eps, -ones], 1), batch)["vlb"].item() == pytest.approx(0, abs=1e-12)
    betas = np.linspace(1e-4, 0.02, 100)
    alphabar = np.cumprod(1 - betas)
    ratio = (1 - alphabar[49]) / (1 - alphabar[50])
    want = 0.5 * (ratio - math.log(ratio) - 1) / math.log(2) * 0.1
    got = objective.loss(torch.cat([batch.eps, ones], 1), batch)["vlb"].item()
    assert got == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("config", [RectifiedFlowConfig(prediction="x0"), DDPMConfig()])
def test_half_precision_predictions_are_scored_in_float32(config):
    objective = build_objective(config)
    x0, eps = (v.bfloat16() for v in tensors(2, 2, 2, 2, count=2))
    batch = objective.draw(x0, torch.tensor([0.2, 0.7], dtype=torch.float64), eps)
    prediction = torch.zeros(2, objective.out_channels(2), 2, 2, dtype=torch.bfloat16)
    assert batch.x_t.dtype == batch.t.dtype == torch.float32
    assert all(part.dtype == torch.float32 for part in objective.loss(prediction, batch).values())
    assert objective.denoised(prediction, batch.x_t, batch.t).velocity.dtype == torch.float32


def test_configs_come_back_from_data_and_refuse_falling_betas():
    adapter = TypeAdapter(ObjectiveConfig)
    for config in (RectifiedFlowConfig(), DDPMConfig(prediction="velocity")):
        assert adapter.validate_python(config.model_dump()) == config
    with pytest.raises(ValidationError, match="betas must not decrease"):
        DDPMConfig(beta_start=0.02, beta_end=1e-4)
