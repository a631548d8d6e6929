"""On real pictures through the offline extractor: distances grow under noise, blur and missing classes."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from leandit.data import EmojiConfig, build_source
from leandit.evaluation.extractors import EffNetLite0
from leandit.evaluation.frechet import frechet_distance, gaussian_of
from leandit.evaluation.kernel import cubic_mmd
from leandit.evaluation.precision_recall import precision_recall

_COUNT = 120


@pytest.fixture(scope="module")
def emoji() -> tuple[np.ndarray, np.ndarray]:
    """Real pictures and their classes, in an order that mixes them."""
    source = build_source(EmojiConfig(styles=("noto",)))
    order = np.random.default_rng(0).permutation(len(source))[: 2 * _COUNT]
    examples = [source[int(n)] for n in order]
    return np.stack([e.image for e in examples]), np.array([e.label for e in examples])


@pytest.fixture(scope="module")
def extractor() -> EffNetLite0:
    return EffNetLite0(resolution=96)


@pytest.fixture(scope="module")
def real(extractor: EffNetLite0, emoji: tuple[np.ndarray, np.ndarray]) -> torch.Tensor:
    return extractor(torch.from_numpy(emoji[0][:_COUNT]))


@pytest.fixture(scope="module")
def other_half(extractor: EffNetLite0, emoji: tuple[np.ndarray, np.ndarray]) -> torch.Tensor:
    return extractor(torch.from_numpy(emoji[0][_COUNT:]))


def noisy(pictures: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(scale=sigma, size=pictures.shape)
    return np.clip(pictures + noise, 0, 255).round().astype(np.uint8)


def blurred(pictures: np.ndarray, radius: float) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(radius))) for p in pictures])


@pytest.mark.parametrize(("degrade", "amounts"), [(noisy, (5, 15, 40)), (blurred, (0.7, 1.5, 3.0))])
def test_distances_grow_with_the_damage(
    extractor: EffNetLite0, emoji: tuple, real: torch.Tensor, other_half: torch.Tensor, degrade, amounts: tuple
) -> None:
    damaged = [extractor(torch.from_numpy(degrade(emoji[0][_COUNT:], amount))) for amount in amounts]
    sets = [other_half, *damaged]
    kids = [cubic_mmd(real, drawn) for drawn in sets]
    # Every eighth feature: of 120 pictures, 1,280 would tell no more, and take seconds.
    frechets = [frechet_distance(*(gaussian_of(each[:, ::8]) for each in (real, drawn))) for drawn in sets]
    assert kids == sorted(kids)
    assert frechets == sorted(frechets)
    assert abs(kids[0]) < 0.2 * kids[-1]
    assert precision_recall(real, damaged[-1])[0] < precision_recall(real, other_half)[0]


def test_distances_grow_and_recall_falls_with_missing_classes(
    emoji: tuple, real: torch.Tensor, other_half: torch.Tensor
) -> None:
    labels = emoji[1][_COUNT:]
    common = np.bincount(labels).argsort()[::-1]
    few, fewer = (other_half[torch.from_numpy(np.isin(labels, common[:count]))] for count in (20, 5))
    kids = [cubic_mmd(real, drawn) for drawn in (other_half, few, fewer)]
    assert kids == sorted(kids)
    assert precision_recall(real, fewer)[1] < 0.75 * precision_recall(real, other_half)[1]
