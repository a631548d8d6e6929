"""The scorer reads pictures: right on scenes with known answers, wrong prompts are told, and pixels are all it sees."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from leandit.data.scenes import Contents, Scene, Thing, captions_of, draw_scene, render
from leandit.data.scenes.vocabulary import COLOURS, KINDS, SHAPES
from leandit.errors import LeanDiTError
from leandit.evaluation.benchmarks.scenes import Claims, Found, judge, parse_claims, read_pictures, score
from leandit.evaluation.benchmarks.scenes.regions import label_components
from leandit.evaluation.benchmarks.scenes.scorer import relations

COUNT = 2000
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
ACROSS = {"left of": "above", "right of": "below", "above": "right of", "below": "left of"}


@lru_cache(maxsize=1)
def scenes() -> tuple[Scene, ...]:
    """Half of the scenes on white, half on light tints."""
    return tuple(draw_scene(Contents(seed=7, split="all", tinted=i % 2 == 1), i) for i in range(COUNT))


def pictures(size: int, blur: float = 0, noise: float = 0) -> torch.Tensor:
    """Render the scenes, blurred by a Gaussian of so many pixels of 32 and with noise of so many levels of 255."""
    drawn = np.stack([render(scene, size) for scene in scenes()])
    if blur:
        soft = ImageFilter.GaussianBlur(blur * size / 32)
        drawn = np.stack([np.asarray(Image.fromarray(picture).filter(soft)) for picture in drawn])
    grain = noise * np.random.default_rng(0).standard_normal(drawn.shape, dtype=np.float32)
    return torch.from_numpy((drawn + grain).round().clip(0, 255).astype(np.uint8))


def variants(claims: Claims) -> Iterator[Claims]:
    """Yield claims that differ from true ones in one respect and are false for it."""
    for place, claim in enumerate(claims.things):
        others = [replace(claim, count=claim.count % 4 + 1)]
        if claim.colour is not None:
            others.append(replace(claim, colour=following(tuple(COLOURS), claim.colour)))
        taken = {c.kind for c in claims.things}
        kinds = SHAPES if claim.kind in SHAPES else KINDS[len(SHAPES) :]
        others.append(replace(claim, kind=next(kind for kind in (*kinds, *KINDS) if kind not in taken)))
        for other in others:
            yield replace(claims, things=(*claims.things[:place], other, *claims.things[place + 1 :]))
    if claims.relation is not None:
        yield replace(claims, relation=OPPOSITE[claims.relation])
        yield replace(claims, relation=ACROSS[claims.relation])
    if len(claims.things) == 2:
        one, other = claims.things
        if one.colour and other.colour and one.colour != other.colour:
            swapped = (replace(one, colour=other.colour), replace(other, colour=one.colour))
            yield replace(claims, things=swapped)


def following(options: tuple[str, ...], name: str) -> str:
    return options[(options.index(name) + 1) % len(options)]


@pytest.mark.parametrize(("blur", "noise"), [(0, 0), (0.7, 10)])
@pytest.mark.parametrize("size", [32, 64])
def test_right_on_scenes_with_known_answers_and_never_on_wrong_prompts(size: int, blur: float, noise: float) -> None:
    found = read_pictures(pictures(size, blur, noise))
    right, fooled = [], []
    for scene, seen in zip(scenes(), found, strict=True):
        true = [parse_claims(caption.text) for caption in captions_of(scene)]
        right.append(all(judge(claims, seen) for claims in true))
        fooled.append(any(judge(wrong, seen) for claims in true for wrong in variants(claims)))
    assert len(right) == COUNT
    # The goal is 99 %; a fall below what is measured now (all of them) is worth a look.
    assert np.mean(right) >= 0.995
    assert np.mean(fooled) <= 0.005


def test_kinds_colours_and_places_are_those_of_the_scene() -> None:
    for scene, seen in zip(scenes()[:300], read_pictures(pictures(32)[:300]), strict=True):
        remaining = list(seen)
        for thing in scene.things:
            nearest = min(remaining, key=lambda f: math.hypot(f.x - thing.x, f.y - thing.y))
            remaining.remove(nearest)
            assert (nearest.kind, nearest.colour) == (thing.kind, thing.colour)
            # Emoji do not fill their square.
            if thing.colour is not None:
                assert max(abs(nearest.x - thing.x), abs(nearest.y - thing.y)) < 1 / 32
                assert abs(nearest.width - thing.size * (0.88 if thing.kind == "square" else 0.98)) < 2.5 / 32
        assert not remaining


def by_hand(size: int = 64) -> np.ndarray:
    """A red disc left of a blue triangle, drawn by Pillow in whole pixels: nothing of the renderer's."""
    picture = Image.new("RGB", (size, size), (250, 250, 245))
    pen, unit = ImageDraw.Draw(picture), size // 32
    pen.ellipse((3 * unit, 11 * unit, 13 * unit, 21 * unit), fill=(200, 45, 50))
    pen.polygon([(23 * unit, 11 * unit), (17 * unit, 21 * unit), (29 * unit, 21 * unit)], fill=(45, 70, 200))
    return np.array(picture)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_pictures_of_another_hand_are_read(size: int) -> None:
    picture = torch.from_numpy(by_hand(size))[None]
    (seen,) = read_pictures(picture)
    assert [(f.kind, f.colour) for f in seen] == [("circle", "red"), ("triangle", "blue")]
    assert score(picture, [parse_claims("a red circle left of a blue triangle")]) == [True]
    assert score(picture, [parse_claims("a blue circle left of a red triangle")]) == [False]
    assert score(picture, [parse_claims("a red circle")]) == [False]


def test_a_verdict_changes_with_the_pixels_alone() -> None:
    claims = parse_claims("a red circle left of a blue triangle")
    picture = by_hand()
    mirrored = picture[:, ::-1].copy()
    recoloured = picture[..., ::-1].copy()
    erased = picture.copy()
    erased[:, 32:] = picture[0, 0]
    changed = torch.from_numpy(np.stack([picture, mirrored, recoloured, erased]))
    assert score(changed, [claims] * 4) == [True, False, False, False]


def test_a_picture_is_read_alone_as_among_others() -> None:
    some = pictures(32)[:40]
    together = read_pictures(some)
    assert read_pictures(some.flip(0)) == together[::-1]
    for place in (0, 7, 39):
        (alone,) = read_pictures(some[place : place + 1])
        assert [(f.kind, f.colour, f.x, f.y) for f in alone] == [(f.kind, f.colour, f.x, f.y) for f in together[place]]


def strange() -> dict[str, np.ndarray]:
    """Pictures that show nothing of the vocabulary, or not as it is."""
    white = np.full((64, 64, 3), 255, np.uint8)
    touching = render(Scene((Thing("circle", "red", 0.34, 0.5, 0.36), Thing("circle", "red", 0.68, 0.5, 0.36))), 64)
    halved = render(Scene((Thing("circle", "red", 0.5, 0.5, 0.5),)), 64)
    halved[:, 32:] = halved[:, 32:][..., ::-1]
    bar = white.copy()
    bar[30:34, 4:60] = (220, 30, 40)
    grey = render(Scene((Thing("circle", "black", 0.5, 0.5, 0.5),)), 64)
    grey = np.maximum(grey, 150)
    return {"touching": touching, "halved": halved, "bar": bar, "grey": grey}


@pytest.mark.parametrize("name", ["touching", "halved", "bar"])
def test_what_looks_like_nothing_known_is_called_nothing(name: str) -> None:
    (seen,) = read_pictures(torch.from_numpy(strange()[name])[None])
    assert [f.kind for f in seen] == [None]


def test_a_shape_in_no_colour_of_the_palette_has_none() -> None:
    (seen,) = read_pictures(torch.from_numpy(strange()["grey"])[None])
    assert [(f.kind, f.colour) for f in seen] == [("circle", None)]


@pytest.mark.parametrize("value", [0, 128, 255])
def test_blank_pictures_show_nothing(value: int) -> None:
    blank = torch.full((3, 32, 32, 3), value, dtype=torch.uint8)
    assert read_pictures(blank) == [(), (), ()]
    assert score(blank, [parse_claims("a circle")] * 3) == [False] * 3
    assert read_pictures(blank[:0]) == []


def test_pure_noise_is_no_scene() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8))
    assert all(f.kind is None for seen in read_pictures(noise) for f in seen)


def test_pictures_that_cannot_be_read_are_refused() -> None:
    for shape in [(1, 31, 31, 3), (1, 32, 40, 3), (1, 32, 32, 1), (32, 32, 3)]:
        with pytest.raises(LeanDiTError, match=r"cannot be read; give (squares|uint8)"):
            read_pictures(torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(LeanDiTError, match="cannot be read; give uint8"):
        read_pictures(torch.zeros(1, 32, 32, 3))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_components_are_scipys(share: float) -> None:
    mask = np.random.default_rng(1).random((6, 40, 33)) < share
    labels = label_components(mask)
    for picture, labelled in zip(mask, labels, strict=True):
        truth, count = ndimage.label(picture)
        pairs = set(zip(truth.ravel().tolist(), labelled.ravel().tolist(), strict=True))
        assert len(pairs) == count + bool((~picture).any())
        assert (labelled[~picture] == 0).all()
    assert not set(np.unique(labels[0])[1:]) & set(np.unique(labels[1])[1:])


def test_a_spiral_is_one_component() -> None:
    mask = np.zeros((1, 21, 21), bool)
    y = x = 10
    for turn in range(18):
        step = [(0, 1), (1, 0), (0, -1), (-1, 0)][turn % 4]
        for _ in range(2 * (turn // 2 + 1)):
            mask[0, y, x] = True
            y, x = min(max(y + step[0], 0), 20), min(max(x + step[1], 0), 20)
    assert ndimage.label(mask[0])[1] == 1
    assert len(np.unique(label_components(mask))) == 2


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (-0.5, 0.0, {"left of"}),
        (0.5, 0.1, {"right of"}),
        (0.0, -0.5, {"above"}),
        (-0.4, 0.4, {"left of", "below"}),
        (0.05, -0.05, set()),
        (0.3, 0.07, {"right of"}),
    ],
)
def test_relations_follow_genevals_rule(x: float, y: float, expected: set[str]) -> None:
    one, other = Found("circle", "red", 0.5 + x, 0.5 + y, 0.3, 0.3), Found("cat", None, 0.5, 0.5, 0.3, 0.3)
    assert relations(one, other) == expected
    assert relations(other, one) == {OPPOSITE[name] for name in expected}
