"""The Fréchet distance against scipy's matrix root and against torchmetrics."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from leandit.evaluation.frechet import Gaussian, frechet_distance, gaussian_of


def features(seed: int, count: int, dim: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim))


def with_matrix_root(x: np.ndarray, y: np.ndarray) -> float:
    """The formula as FID's authors and torch-fidelity write it, with the root of the product of the covariances."""
    m1, m2 = x.mean(0), y.mean(0)
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(s1 @ s2)
    return float((m1 - m2) @ (m1 - m2) + np.trace(s1 + s2 - 2 * np.real(root)))


@pytest.mark.parametrize(("count", "other", "dim"), [(200, 150, 8), (500, 500, 32), (40, 41, 3)])
def test_it_is_the_published_formula(count: int, other: int, dim: int) -> None:
    x, y = features(0, count, dim), features(1, other, dim)
    ours = frechet_distance(gaussian_of(x), gaussian_of(y))
    assert ours == pytest.approx(with_matrix_root(x.numpy(), y.numpy()), rel=1e-6)


def test_it_needs_no_epsilon_with_fewer_samples_than_dimensions() -> None:
    x, y = features(2, 20, 64), features(3, 30, 64)
    ours = frechet_distance(gaussian_of(x), gaussian_of(y))
    # The nuclear norm of the product of the centred matrices is the cross term, whatever the ranks.
    a, b = ((z - z.mean(0)).numpy() / np.sqrt(len(z) - 1) for z in (x, y))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    expected = float((x.mean(0) - y.mean(0)).square().sum()) + (a**2).sum() + (b**2).sum() - 2 * cross
    assert ours == pytest.approx(expected, rel=1e-6)


def test_of_known_gaussians() -> None:
    first = Gaussian(torch.zeros(2).double(), torch.diag(torch.tensor([1.0, 4.0])).double())
    second = Gaussian(torch.tensor([3.0, 0.0]).double(), torch.diag(torch.tensor([9.0, 4.0])).double())
    assert frechet_distance(first, second) == pytest.approx(9 + (3 - 1) ** 2, abs=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


class _Pixels(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :16].double()


def test_torchmetrics_agrees() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    rng = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (80, 3, 4, 4), generator=rng, dtype=torch.uint8)
    fake = torch.randint(0, 200, (70, 3, 4, 4), generator=rng, dtype=torch.uint8)
    metric = FrechetInceptionDistance(feature=_Pixels()).set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    ours = frechet_distance(gaussian_of(_Pixels()(real)), gaussian_of(_Pixels()(fake)))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-6)
