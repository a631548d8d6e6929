from __future__ import annotations

import numpy as np
import pytest
import torch

from leandit.diffusion import LinearPath, VariancePreservingPath, chain, posterior


def brute_force(alpha_s, sigma_s, alpha_t, sigma_t, x0, x_t):
    """Mean and variance of x_s by Bayes' rule on a fine grid: q(x_s | x0) q(x_t | x_s), normalised."""
    ratio = alpha_t / alpha_s
    forward = sigma_t**2 - ratio**2 * sigma_s**2
    centre = alpha_s * x0
    xs = np.linspace(centre - 12 * sigma_s, centre + 12 * sigma_s, 400_001)
    log = -((xs - centre) ** 2) / (2 * sigma_s**2) - (x_t - ratio * xs) ** 2 / (2 * forward)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = (weight * xs).sum()
    return mean, (weight * (xs - mean) ** 2).sum()


@pytest.mark.parametrize("path", [LinearPath(), VariancePreservingPath()])
@pytest.mark.parametrize(("t", "s"), [(0.6, 0.599), (0.6, 0.4), (0.02, 0.01), (1.0, 0.8)])
def test_posterior_is_bayes_rule(path, t, s):
    at_t, at_s = (path.coefficients(torch.tensor(v, dtype=torch.float64)) for v in (t, s))
    x0, noise = 0.8, -0.6
    x_t = at_t.alpha.item() * x0 + at_t.sigma.item() * noise
    q = posterior(path, torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64))
    mean, variance = brute_force(*(v.item() for v in (at_s.alpha, at_s.sigma, at_t.alpha, at_t.sigma)), x0, x_t)
    assert (q.x0_weight * x0 + q.x_weight * x_t).item() == pytest.approx(mean, rel=1e-6, abs=1e-9)
    assert q.variance.item() == pytest.approx(variance, rel=1e-5)


def test_chain_has_the_published_ddpm_weights():
    betas = np.linspace(1e-4, 0.02, 1000)
    alphabar = np.cumprod(1 - betas)
    before = np.append(1.0, alphabar[:-1])
    path = VariancePreservingPath()
    c = chain(path, path.grid())
    small = betas * (1 - before) / (1 - alphabar)
    small[0] = small[1]
    np.testing.assert_allclose(c.variance, small, rtol=1e-8)
    np.testing.assert_allclose(c.forward_variance, betas, rtol=1e-8)
    np.testing.assert_allclose(c.x0_weight, betas * np.sqrt(before) / (1 - alphabar), rtol=1e-8)
    np.testing.assert_allclose(c.x_weight, (1 - before) * np.sqrt(1 - betas) / (1 - alphabar), rtol=1e-8, atol=1e-12)
