from __future__ import annotations

import numpy as np
import pytest
import torch

from leandit.diffusion import LinearPath, VariancePreservingPath

PATHS = {"linear": LinearPath(), "vp": VariancePreservingPath()}


@pytest.fixture(params=PATHS)
def path(request):
    return PATHS[request.param]


def batch(seed=0, size=7, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(size, 3, 2, 2, generator=g, dtype=dtype) for _ in range(2))


def test_vp_grid_is_the_product_of_one_minus_beta():
    product, betas = 1.0, np.linspace(1e-4, 0.02, 1000)
    c = PATHS["vp"].coefficients(PATHS["vp"].grid())
    for i, beta in enumerate(betas):
        product *= 1 - beta
        assert c.alpha[i].item() == pytest.approx(product**0.5, rel=1e-12)
        assert c.sigma[i].item() == pytest.approx((1 - product) ** 0.5, rel=1e-9)


def test_vp_is_log_linear_between_grid_points_and_starts_at_one():
    c = PATHS["vp"].coefficients(torch.tensor([0.0, 0.5e-3, 1e-3, 4.25e-3, 4e-3, 5e-3], dtype=torch.float64))
    log = 2 * torch.log(c.alpha)
    assert log[0] == 0
    assert c.sigma[0] == 0
    assert log[1].item() == pytest.approx(log[2].item() / 2, rel=1e-9)
    assert log[3].item() == pytest.approx(0.75 * log[4].item() + 0.25 * log[5].item(), rel=1e-9)


def test_velocity_is_the_time_derivative_of_the_mix(path):
    x0, eps = batch()
    t = torch.tensor([0.0005, 0.10044, 0.25, 0.5, 0.5555, 0.9, 0.9996], dtype=torch.float64)
    h = 1e-7
    numeric = (path.mix(x0, eps, t + h) - path.mix(x0, eps, t - h)) / (2 * h)
    torch.testing.assert_close(path.velocity(x0, eps, t), numeric, rtol=1e-5, atol=1e-5)


def test_the_slopes_of_vp_at_both_ends_are_one_sided():
    vp, h = PATHS["vp"], 1e-7
    ends, inside = (vp.coefficients(torch.tensor(t, dtype=torch.float64)) for t in ([0.0, 1.0], [h, 1 - h]))
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(ends.alpha_slope, sign * (inside.alpha - ends.alpha) / h, rtol=1e-5, atol=1e-9)
    last = sign * (inside.sigma - ends.sigma) / h
    torch.testing.assert_close(ends.sigma_slope[1], last[1], rtol=1e-5, atol=1e-9)


def test_float32_times_on_the_grid_give_the_two_sided_slope():
    vp = PATHS["vp"]
    exact = vp.coefficients(vp.grid()[9:-1])
    rounded = vp.coefficients(vp.grid()[9:-1].float())
    torch.testing.assert_close(rounded.sigma_slope.double(), exact.sigma_slope, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rounded.alpha_slope.double(), exact.alpha_slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["velocity", "x0", "epsilon"])
def test_conversions_round_trip(path, kind):
    x0, eps = batch()
    t = torch.tensor([1e-3, 0.02, 0.3, 0.5, 0.77, 0.98, 0.999], dtype=torch.float64)
    x_t, velocity = path.mix(x0, eps, t), path.velocity(x0, eps, t)
    given = {"velocity": velocity, "x0": x0, "epsilon": eps}[kind]
    parts = path.convert(kind, given, x_t, t)
    for got, want in zip(parts, (x0, eps, velocity), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-7)


def test_velocity_holds_both_parts_at_the_very_ends(path):
    x0, eps = batch(size=2)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    x_t, velocity = path.mix(x0, eps, t), path.velocity(x0, eps, t)
    parts = path.convert("velocity", velocity, x_t, t)
    torch.testing.assert_close(parts.x0, x0)
    torch.testing.assert_close(parts.eps, eps)


@pytest.mark.parametrize("kind", ["velocity", "x0", "epsilon"])
def test_conversions_are_finite_at_the_very_ends_in_float32(path, kind):
    value, x_t = batch(size=2, dtype=torch.float32)
    for part in path.convert(kind, value, x_t, torch.tensor([0.0, 1.0])):
        assert torch.isfinite(part).all()


def test_half_precision_data_is_mixed_in_float32(path):
    x0, eps = batch(dtype=torch.bfloat16)
    assert path.mix(x0, eps, torch.full((7,), 0.5, dtype=torch.bfloat16)).dtype == torch.float32
