"""The benchmark's prompts, the claims that are read from them, and the metric that counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from leandit.data.scenes import Category, Contents, Scene, Thing, captions_of, draw_scene, render
from leandit.data.scenes.vocabulary import COLOURS, HELD_OUT_COLOURS, HELD_OUT_COUNTS, HELD_OUT_PAIRS, KINDS
from leandit.errors import LeanDiTError
from leandit.evaluation.benchmarks.scenes import Claim, Claims, benchmark_prompts, parse_claims, prompts_hash
from leandit.evaluation.metric import Drawn, Job
from leandit.evaluation.registry import build_metric
from leandit.presets import run_config

EVERY = [prompt for some in benchmark_prompts().values() for prompt in some]


@pytest.mark.parametrize(
    ("prompt", "claims"),
    [
        ("a circle", Claims((Claim("circle"),))),
        ("a picture of an orange ring", Claims((Claim("ring", "orange"),))),
        ("three fish", Claims((Claim("fish", None, 3),))),
        ("One fish", Claims((Claim("fish"),))),
        ("two blue crosses", Claims((Claim("cross", "blue", 2),))),
        ("four strawberries", Claims((Claim("strawberry", None, 4),))),
        ("a red circle and a green triangle", Claims((Claim("circle", "red"), Claim("triangle", "green")))),
        ("a cat left of a red star", Claims((Claim("cat"), Claim("star", "red")), "left of")),
        ("an orange cross below a tree", Claims((Claim("cross", "orange"), Claim("tree")), "below")),
    ],
)
def test_prompts_are_read_by_their_words(prompt: str, claims: Claims) -> None:
    assert parse_claims(prompt) == claims


@pytest.mark.parametrize(
    "prompt",
    [
        *("", "red", "a dog", "a mauve circle", "five circles", "two circle", "a circle and", "a circle and a circle"),
        *("a circle and a cat and a star", "two cats and a star", "a circle near a cat", "x" * 10_000),
    ],
)
def test_other_wordings_are_refused(prompt: str) -> None:
    with pytest.raises(LeanDiTError, match="cannot be scored"):
        parse_claims(prompt)


def test_six_categories_of_different_prompts() -> None:
    assert list(benchmark_prompts()) == list(Category)
    assert all(60 <= len(some) <= 100 for some in benchmark_prompts().values())
    assert len({prompt.text for prompt in EVERY}) == len(EVERY)
    assert {claim.kind for prompt in EVERY for claim in prompt.claims.things} == set(KINDS)
    assert {claim.colour for prompt in EVERY for claim in prompt.claims.things} == {None, *COLOURS}


def test_the_list_is_fixed() -> None:
    # A change here makes results incomparable with those before it, which the hash in every result tells.
    assert prompts_hash() == "5a51902811d54674fa176a398ec9cac1bda5d4144899564762a65f1096c67b06"


def test_prompts_are_in_the_category_of_what_they_claim() -> None:
    for prompt in EVERY:
        first, *other = prompt.claims.things
        coloured = all(claim.colour for claim in prompt.claims.things)
        if other:
            plain = Category.ATTRIBUTION if coloured else Category.TWO_OBJECTS
            assert prompt.category == (Category.POSITION if prompt.claims.relation else plain)
        elif first.count > 1:
            assert prompt.category == Category.COUNTING
        else:
            assert prompt.category == (Category.COLOURS if coloured else Category.SINGLE_OBJECT)


def test_held_out_prompts_say_what_training_never_shows() -> None:
    shown = {caption.text for index in range(6000) for caption in captions_of(draw_scene(Contents(), index))}
    for prompt in EVERY:
        things = prompt.claims.things
        held_out = any((claim.kind, claim.colour) in HELD_OUT_COLOURS for claim in things)
        held_out |= any((claim.kind, claim.count) in HELD_OUT_COUNTS for claim in things)
        held_out |= frozenset(claim.kind for claim in things) in HELD_OUT_PAIRS
        assert prompt.held_out == held_out
        assert not (held_out and prompt.text in shown), prompt.text
    # What is not held out is seen in training: the plain prompts all, of the many coloured ones most.
    seen = [prompt for prompt in EVERY if not prompt.held_out]
    assert np.mean([prompt.text in shown for prompt in seen]) > 0.9


def fake_run(*overrides: str, preset: str = "scenes-race-air") -> Any:
    """Return what the metric asks of a run: its config and its name."""
    return SimpleNamespace(config=run_config(preset, list(overrides)), path=Path("runs/some"))


def job(num_samples: int, run: Any = None) -> Job:
    return Job(run or fake_run(), num_samples, reference=None)  # type: ignore[arg-type]


def scene_of(claims: Claims) -> Scene:
    """Return a scene that shows what is claimed."""
    if len(claims.things) == 1:
        (claim,) = claims.things
        colour = claim.colour or (None if claim.kind not in KINDS[:6] else "blue")
        places = [(0.25, 0.25), (0.75, 0.3), (0.26, 0.75), (0.7, 0.76)]
        return Scene(tuple(Thing(claim.kind, colour, x, y, 0.36) for x, y in places[: claim.count]))
    ends = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1), None: (0, 1)}
    axis, sign = ends[claims.relation]
    things = []
    for claim, side in zip(claims.things, (-sign, sign), strict=True):
        colour = claim.colour or (None if claim.kind not in KINDS[:6] else "purple")
        place = [0.5, 0.5]
        place[axis] += 0.25 * side
        things.append(Thing(claim.kind, colour, *place, 0.36))
    return Scene(tuple(things))


def drawings(wanted: Any, size: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.stack([render(scene_of(parse_claims(text)), size) for text in wanted]))


def test_the_plan_is_an_equal_share_or_full_rounds() -> None:
    metric = build_metric("scenes")
    few = metric.plan(job(65))
    assert few is not None
    assert few.wanted is not None
    assert len(few.wanted) == len(few.seeds) == 60
    category = {prompt.text: prompt.category for prompt in EVERY}
    assert all(sum(category[str(text)] == c for text in few.wanted) == 10 for c in Category)
    twice = metric.plan(job(1000))
    assert twice is not None
    assert twice.wanted is not None
    assert sorted(twice.wanted) == sorted([prompt.text for prompt in EVERY] * (1000 // len(EVERY)))
    assert len(set(twice.seeds)) == len(twice.seeds)
    # The same prompt has the same seed, however many are drawn.
    seeds = dict(zip(reversed(twice.wanted), reversed(twice.seeds), strict=True))
    assert all(seeds[text] == seed for text, seed in zip(few.wanted, few.seeds, strict=True))


def test_right_pictures_score_one_and_the_score_is_the_mean_of_categories() -> None:
    metric, given = build_metric("scenes"), job(len(EVERY))
    plan = metric.plan(given)
    assert plan is not None
    pictures = drawings(plan.wanted)
    perfect = metric.measure(given, Drawn(pictures, plan))
    assert set(perfect.values) == {"scenes", "scenes/seen", "scenes/held_out"} | {f"scenes/{c.value}" for c in Category}
    assert set(perfect.values.values()) == {1.0}
    # Blank pictures for all prompts of one category, and for one prompt in three of another.
    category = {prompt.text: prompt.category for prompt in EVERY}
    blank = [category[str(text)] == Category.COUNTING for text in plan.wanted or ()]
    of_colours = [i for i, text in enumerate(plan.wanted or ()) if category[str(text)] == Category.COLOURS]
    for place in of_colours[::3]:
        blank[place] = True
    broken = torch.where(torch.tensor(blank)[:, None, None, None], torch.full_like(pictures, 255), pictures)
    values = metric.measure(given, Drawn(broken, plan)).values
    assert values["scenes/counting"] == 0
    assert values["scenes/colours"] == pytest.approx(2 / 3)
    assert values["scenes"] == pytest.approx((4 + 2 / 3) / 6)


def test_a_measurement_says_what_it_is_made_of() -> None:
    metric, given = build_metric("scenes"), job(60)
    plan = metric.plan(given)
    assert plan is not None
    small, large = (metric.measure(given, Drawn(drawings(plan.wanted, size), plan)).made_of for size in (32, 64))
    assert small["prompts"] == prompts_hash()
    assert (small["prompts_used"], small["pictures"], small["resolution"]) == (60, 60, 32)
    assert {name for name in small if small[name] != large[name]} == {"resolution"}


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (fake_run(preset="quickstart"), "needs prompts, and the model reads none"),
        (fake_run("data.image_size=16"), "at least 32 x 32; the run draws 16 x 16"),
        (fake_run("data.channels=1"), "grey pictures"),
    ],
)
def test_runs_that_cannot_be_scored_are_refused(run: Any, message: str) -> None:
    with pytest.raises(LeanDiTError, match=message):
        build_metric("scenes").plan(job(60, run))


def test_too_few_samples_are_refused_with_the_number_needed() -> None:
    with pytest.raises(LeanDiTError, match=r"59 samples are too few .* --num-samples 60"):
        build_metric("scenes").plan(job(59))
