"""The fit of the alignment heads: loss, ranks and degraded pictures against naive loops; the fit on synthetic pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from alignment_fitting import (
    DegradeConfig,
    FitConfig,
    contrastive_loss,
    degrade,
    fit_heads,
    ranks,
    retrieval_figures,
    save_heads,
)
from scipy.ndimage import gaussian_filter, shift

from leandit.errors import LeanDiTError
from leandit.evaluation.alignment import AlignmentHeads, load_heads
from tiny_judges import pictures


def test_the_loss_is_two_cross_entropies() -> None:
    points = np.random.default_rng(0).standard_normal((2, 5, 3))
    a, b = points / np.linalg.norm(points, axis=-1, keepdims=True)
    total = 0.0
    for i in range(5):
        rows = [float(a[i] @ b[j]) / 0.2 for j in range(5)]
        columns = [float(a[j] @ b[i]) / 0.2 for j in range(5)]
        total += np.log(sum(map(np.exp, rows))) - rows[i] + np.log(sum(map(np.exp, columns))) - columns[i]
    found = contrastive_loss(torch.from_numpy(a), torch.from_numpy(b), 0.2)
    assert float(found) == pytest.approx(total / 10, abs=1e-9)


def test_ranks_count_who_is_at_least_as_good() -> None:
    similarity = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.2, 0.1], [0.3, 0.2, 0.1]])
    assert ranks(similarity, torch.tensor([0, 0, 2])).tolist() == [1, 2, 3]
    figures = retrieval_figures(similarity, torch.tensor([0, 0, 2]))
    assert figures == {"R@1": pytest.approx(1 / 3), "R@5": 1.0, "median rank": 2.0}


def test_degraded_pictures_are_shifted_blurred_and_noisy() -> None:
    shown = pictures(40, 32)
    assert torch.equal(degrade(shown, DegradeConfig(shift=0, blur=0, noise=0), 0, 1), shown)
    moved = degrade(shown, DegradeConfig(shift=2, blur=0, noise=0), 0, 1)
    places = []
    for before, after in zip(shown.numpy(), moved.numpy(), strict=True):
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if (shift(before, (down, right, 0), order=0, mode="nearest") == after).all()
        ]
        places += fits
        assert len(fits) == 1
    assert len(set(places)) > 12
    noisy = degrade(torch.full_like(shown, 128), DegradeConfig(shift=0, blur=0, noise=25), 0, 1).float()
    spreads = (noisy - 128).flatten(1).std(1)
    assert 10 <= int((spreads < 0.5).sum()) <= 30
    assert 15 < float(spreads.max()) < 26


def test_blur_is_a_gaussian() -> None:
    shown = pictures(8, 32)
    blurred = degrade(shown, DegradeConfig(shift=0, blur=1.0, noise=0), 0, 1)
    # Which width was drawn is found out; neighbouring ones differ by about one of 255 in the mean.
    sigmas = np.linspace(0, 1, 251)
    found = []
    for before, after in zip(shown.numpy().astype(float), blurred.numpy(), strict=True):
        errors = [np.abs(gaussian_filter(before, (s, s, 0), mode="nearest") - after).mean() for s in sigmas]
        found.append(sigmas[int(np.argmin(errors))])
        assert min(errors) < 1.0
    assert max(found) > 0.3


def test_versions_differ_and_repeat() -> None:
    shown = pictures(3, 32)
    first = degrade(shown, DegradeConfig(), 0, 1)
    assert torch.equal(degrade(shown, DegradeConfig(), 0, 1), first)
    assert not torch.equal(degrade(shown, DegradeConfig(), 0, 2), first)
    assert not torch.equal(degrade(shown, DegradeConfig(), 1, 1), first)


def synthetic(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features of pictures, in two noisy versions, and of texts: fixed mixtures of the same hidden causes."""
    mix = torch.randn(2, 8, 12, generator=torch.Generator().manual_seed(99))
    draws = torch.Generator().manual_seed(seed)
    causes = torch.randn(count, 8, generator=draws)
    seen = torch.stack([causes @ mix[0] + 0.1 * torch.randn(count, 12, generator=draws) for _ in range(2)])
    return seen, causes @ mix[1]


def test_fitting_brings_unseen_pairs_together_and_repeats() -> None:
    config = FitConfig(epochs=40, batch_size=64, hidden=32, dim=16, dropout=0.0, rate=3e-3)
    heads = fit_heads(*synthetic(256, 0), config)
    seen, texts = synthetic(64, 1)
    own = torch.arange(64)
    assert retrieval_figures(heads.similarity(seen[0], texts), own)["R@1"] > 0.6
    again = fit_heads(*synthetic(256, 0), config).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in heads.state_dict().items())
    other = fit_heads(*synthetic(256, 0), config.replace(seed=1)).state_dict()
    assert not torch.equal(other["text.out.weight"], again["text.out.weight"])


def test_heads_survive_their_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    heads = AlignmentHeads(12, 9, 8, 4).eval()
    save_heads(heads, tmp_path / "heads.safetensors", {"fit": {"seed": 3}})
    loaded, about = load_heads(tmp_path / "heads.safetensors")
    seen, texts = torch.randn(5, 12), torch.randn(6, 9)
    torch.testing.assert_close(loaded.similarity(seen, texts), heads.similarity(seen, texts), atol=2e-3, rtol=0)
    assert about["fit"] == {"seed": 3}
    assert len(about["heads_sha256"]) == 64
    (tmp_path / "heads.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(LeanDiTError, match="cannot be read"):
        load_heads(tmp_path / "heads.safetensors")
