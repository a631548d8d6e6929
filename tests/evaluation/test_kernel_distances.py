"""KID and CMMD against loops over pairs, torchmetrics, and the formulas of torch-fidelity."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from leandit.evaluation.kernel import cmmd, cubic_mmd, kid


def features(seed: int, count: int, dim: int = 6) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)) + 0.3 * seed


def pairwise(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate pair by pair."""
    dim = x.shape[1]

    def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return sum((float(a[i].astype(np.float64) @ b[j]) / dim + 1) ** 3 for i, j in pairs) / len(pairs)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def test_the_cubic_estimate_is_the_mean_over_pairs() -> None:
    x, y = features(0, 23), features(1, 31)
    assert cubic_mmd(x, y) == pytest.approx(pairwise(x.numpy().astype(np.float64), y.numpy().astype(np.float64)), 1e-6)


def test_the_estimate_is_unbiased() -> None:
    draws = [torch.randn(60, 4, generator=torch.Generator().manual_seed(n)) for n in range(300)]
    values = [cubic_mmd(draw[:30], draw[30:]) for draw in draws]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))


def test_one_subset_of_everything_is_the_estimate_itself() -> None:
    x, y = features(0, 40), features(1, 40)
    mean, deviation = kid(x, y, num_subsets=3, subset_size=40)
    assert mean == pytest.approx(cubic_mmd(x, y), rel=1e-9)
    assert deviation == pytest.approx(0, abs=1e-12)


def test_subsets_follow_the_seed_and_scatter_around_the_whole() -> None:
    x, y = features(0, 200), features(1, 200)
    assert kid(x, y, 50, 40) == kid(x, y, 50, 40)
    assert kid(x, y, 50, 40) != kid(x, y, 50, 40, seed=1)
    mean, deviation = kid(x, y, 50, 40)
    assert abs(mean - cubic_mmd(x, y)) < 4 * deviation / math.sqrt(50)


def fidelity_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Polynomial MMD as torch-fidelity arranges it: row sums without the diagonal, degree 3, gamma 1/dim, coef 1."""
    gram = [(a @ b.T / x.shape[1] + 1.0) ** 3 for a, b in ((x, x), (x, y), (y, y))]
    m = len(x)
    sums = [(matrix.sum(axis=1) - np.diagonal(matrix)).sum() for matrix in (gram[0], gram[2])]
    return float((sums[0] + sums[1]) / (m * (m - 1)) - 2 * gram[1].sum() / (m * m))


def test_torch_fidelity_s_formula_agrees() -> None:
    x, y = features(0, 50).double(), features(1, 50).double()
    assert cubic_mmd(x, y) == pytest.approx(fidelity_mmd(x.numpy(), y.numpy()), rel=1e-6)


class _Pixels(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :16].double() / 64


def test_torchmetrics_agrees() -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    rng = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(0, top, (50, 3, 4, 4), generator=rng, dtype=torch.uint8) for top in (256, 200))
    metric = KernelInceptionDistance(feature=_Pixels(), subsets=2, subset_size=50)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    assert cubic_mmd(_Pixels()(real), _Pixels()(fake)) == pytest.approx(float(metric.compute()[0]), rel=1e-5)


def test_cmmd_is_the_biased_gaussian_estimate_of_its_public_code() -> None:
    x, y = (nn.functional.normalize(features(seed, count).double(), dim=1) for seed, count in ((0, 21), (1, 17)))

    def mean(a: torch.Tensor, b: torch.Tensor) -> float:
        return sum(math.exp(-float((p - q) @ (p - q)) / 200) for p in a for q in b) / (len(a) * len(b))

    assert cmmd(x, y) == pytest.approx(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), rel=1e-6)
    assert cmmd(x, x) == pytest.approx(0, abs=1e-9)
