"""Improved precision and recall against loops, and the Inception score against numpy."""

import numpy as np
import pytest
import torch

from leandit.evaluation import precision_recall as module
from leandit.evaluation.inception_score import inception_score
from leandit.evaluation.precision_recall import precision_recall
from leandit.random import Stream, generator


def points(seed: int, count: int, dim: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)) + 0.4 * seed


def share_inside(tested: np.ndarray, centres: np.ndarray, k: int) -> float:
    radii = []
    for i, centre in enumerate(centres):
        others = sorted(np.linalg.norm(centre - other) for j, other in enumerate(centres) if j != i)
        radii.append(others[k - 1])
    inside = [any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True)) for p in tested]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_it_counts_points_in_balls(k: int) -> None:
    real, drawn = points(0, 60), points(1, 45)
    precision, recall = precision_recall(torch.from_numpy(real), torch.from_numpy(drawn), k)
    assert precision == pytest.approx(share_inside(drawn, real, k), abs=1e-6)
    assert recall == pytest.approx(share_inside(real, drawn, k), abs=1e-6)
    assert 0 < precision < 1
    assert 0 < recall < 1


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, drawn = torch.from_numpy(points(0, 60)), torch.from_numpy(points(1, 45))
    whole = precision_recall(real, drawn)
    monkeypatch.setattr(module, "_BLOCK", 7)
    assert precision_recall(real, drawn) == whole


def test_doubles_are_neighbours_and_a_set_covers_itself() -> None:
    x = torch.from_numpy(points(0, 20))
    assert precision_recall(x, x) == (1.0, 1.0)
    doubled = torch.cat([x, x, x, x])
    assert float(module.neighbour_radii(doubled, 3).max()) == 0.0


def test_a_set_with_one_mode_is_precise_and_recalls_little() -> None:
    x = torch.from_numpy(np.concatenate([points(0, 50), points(0, 50) + 100]))
    one_mode = x[:50] + 1e-3
    precision, recall = precision_recall(x, one_mode)
    assert precision == 1.0
    assert recall == pytest.approx(0.5, abs=0.05)


def test_the_inception_score_is_exp_of_the_mean_divergence_of_each_split() -> None:
    logits = np.random.default_rng(0).normal(size=(103, 7)) * 2
    order = generator(0, Stream.ORDER, 0).permutation(103)
    p = np.exp(logits[order])
    p /= p.sum(1, keepdims=True)
    splits = [p[n * 103 // 10 : (n + 1) * 103 // 10] for n in range(10)]
    scores = [np.exp(np.mean(np.sum(q * (np.log(q) - np.log(q.mean(0))), 1))) for q in splits]
    mean, deviation = inception_score(torch.from_numpy(logits))
    assert mean == pytest.approx(np.mean(scores), rel=1e-6)
    assert deviation == pytest.approx(np.std(scores), rel=1e-6)


def test_the_inception_score_ends_at_one_and_at_the_number_of_classes() -> None:
    same = torch.zeros(50, 8)
    assert inception_score(same, splits=2)[0] == pytest.approx(1)
    certain = torch.eye(8).repeat(50, 1) * 1000
    assert inception_score(certain, splits=1)[0] == pytest.approx(8)


def test_only_pairs_near_a_surface_are_computed_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    direct = 0
    norm, cdist = torch.linalg.vector_norm, torch.cdist

    def counted(x: torch.Tensor, dim: int) -> torch.Tensor:
        nonlocal direct
        direct += len(x)
        return norm(x, dim=dim)

    def counted_cdist(a: torch.Tensor, b: torch.Tensor, **options: str) -> torch.Tensor:
        nonlocal direct
        direct += len(a) * len(b)
        return cdist(a, b, **options)

    monkeypatch.setattr(torch.linalg, "vector_norm", counted)
    monkeypatch.setattr(torch, "cdist", counted_cdist)
    precision_recall(torch.from_numpy(points(0, 60)), torch.from_numpy(points(1, 45)))
    assert 60 + 45 <= direct < 200


def test_far_from_the_origin_a_product_rounds_and_the_surface_stays() -> None:
    x = torch.from_numpy(points(0, 40) + 1e4)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert float(module.neighbour_radii(torch.cat([x, x, x, x]), 3).max()) == 0.0
    # On a grid every radius is 1, and the other grid's points lie exactly on the surfaces.
    grid = torch.cartesian_prod(*[torch.arange(4.0, dtype=torch.float64)] * 3) + 1e4
    assert precision_recall(grid, grid + torch.tensor([4.0, 0, 0]), k=3)[0] == pytest.approx(1 / 4)
