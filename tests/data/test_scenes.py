"""Scenes: functions of (seed, index), things apart, drawn as geometry says, said truly, and split by combinations."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydantic import ValidationError

from leandit.data import DataConfig, EmojiConfig, Loader, ScenesConfig, build_source
from leandit.data.scenes import Contents, Scene, Thing, captions_of, draw_scene, render
from leandit.data.scenes.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    EMOJI,
    HELD_OUT_COLOURS,
    HELD_OUT_COUNTS,
    HELD_OUT_PAIRS,
    KINDS,
    SHAPES,
)

FINE = 32  # samples per pixel and axis of the oracle


def scenes(count: int, **contents: object) -> list[Scene]:
    return [draw_scene(Contents(**contents), index) for index in range(count)]  # type: ignore[arg-type]


def corners(kind: str) -> list[tuple[float, float]]:
    """Corners of a shape in [-1, 1]^2, y downwards, from its description."""
    if kind == "square":
        return [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
    if kind == "triangle":
        return [(0, -0.866), (1, 0.866), (-1, 0.866)]
    if kind == "cross":
        quarter = [(0.33, -0.98), (0.33, -0.33), (0.98, -0.33)]
        turned = []
        for _ in range(4):
            turned += quarter
            quarter = [(-y, x) for x, y in quarter]
        return turned
    tips = [(r, math.pi / 5 * i) for i, r in enumerate([1.05, 0.47] * 5)]
    return [(r * math.sin(a), 0.1 - r * math.cos(a)) for r, a in tips]


def oracle(thing: Thing, size: int) -> np.ndarray:
    """Draw one shape on white with Pillow, many samples to a pixel, and average."""
    big = Image.new("RGB", (size * FINE, size * FINE), "white")
    pen, radius = ImageDraw.Draw(big), thing.size * size * FINE / 2
    x, y = thing.x * size * FINE, thing.y * size * FINE
    colour = COLOURS[str(thing.colour)]
    if thing.kind in ("circle", "ring"):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        hole = radius / 2
        if thing.kind == "ring":
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill="white")
    else:
        pen.polygon([(x + radius * u, y + radius * v) for u, v in corners(thing.kind)], fill=colour)
    return np.asarray(big, np.float64).reshape(size, FINE, size, FINE, 3).mean((1, 3))


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_cover_pixels_as_geometry_says(kind: str) -> None:
    for place, (x, y, extent) in enumerate([(0.5, 0.5, 0.4), (0.31, 0.643, 0.305), (0.72, 0.29, 0.5)]):
        thing = Thing(kind, tuple(COLOURS)[place], x, y, extent)
        for size in (32, 64):
            difference = np.abs(render(Scene((thing,)), size) - oracle(thing, size))
            # Corners are rounded by less than a pixel; edges are right to a few levels.
            assert difference.max() < 45
            assert difference.mean() < 0.4


def test_an_emoji_at_its_own_size_is_the_emoji_of_the_pack() -> None:
    pack = build_source(EmojiConfig(styles=("noto",), split="all"))
    by_key = {pack[i].key: pack[i].image for i in range(len(pack))}
    for word, name in EMOJI.items():
        drawn = render(Scene((Thing(word, None, 0.375, 0.5, 0.5),)), 64)
        assert np.array_equal(drawn[16:48, 8:40], by_key[f"{name} (noto)"])
        assert (np.delete(drawn, range(8, 40), axis=1) == 255).all()


def test_an_emoji_stands_on_the_background() -> None:
    plain = render(Scene((Thing("cat", None, 0.5, 0.5, 0.4),)), 32)
    tint = BACKGROUNDS[3]
    tinted = render(Scene((Thing("cat", None, 0.5, 0.5, 0.4),), tint), 32)
    assert (tinted[0, 0] == tint).all()
    assert np.abs(tinted - plain / 255.0 * tint).max() <= 1


def test_a_scene_is_a_function_of_seed_and_index() -> None:
    source, again = (build_source(ScenesConfig(length=50)) for _ in range(2))
    backwards = [again[i] for i in reversed(range(50))][::-1]
    assert all(np.array_equal(source[i].image, backwards[i].image) for i in range(50))
    assert [source[i].captions for i in range(50)] == [example.captions for example in backwards]
    other = build_source(ScenesConfig(length=50, seed=1))
    assert sum(source[i].captions == other[i].captions for i in range(50)) < 5


def test_the_fingerprint_tells_sources_apart() -> None:
    changes = [{}, {"seed": 1}, {"length": 9}, {"size": 64}, {"split": "all"}, {"emoji": False}, {"tinted": True}]
    prints = [build_source(ScenesConfig(**change)).fingerprint for change in changes]
    assert len(set(prints)) == len(changes)
    assert prints[0] == build_source(ScenesConfig()).fingerprint


def test_things_are_inside_and_apart() -> None:
    for scene in scenes(2000, split="all"):
        assert 1 <= len(scene.things) <= 4
        for thing in scene.things:
            assert thing.size / 2 + 0.029 < min(thing.x, thing.y, 1 - thing.x, 1 - thing.y)
            assert thing.size * 32 > 9.5
        for one, other in combinations(scene.things, 2):
            reach = (one.size + other.size) / 2 + 0.0999
            assert max(abs(one.x - other.x), abs(one.y - other.y)) > reach


def combinations_of(scene: Scene) -> set[object]:
    kinds = Counter(thing.kind for thing in scene.things)
    pairs = {frozenset(pair) for pair in combinations(kinds, 2)}
    return {(thing.kind, thing.colour) for thing in scene.things} | pairs | set(kinds.items())


def test_training_never_shows_what_is_held_out() -> None:
    held_out = HELD_OUT_COLOURS | HELD_OUT_PAIRS | HELD_OUT_COUNTS
    train, rest = scenes(3000), scenes(1000, split="held_out")
    shown = set().union(*map(combinations_of, train))
    assert not shown & held_out
    assert all(combinations_of(scene) & held_out for scene in rest)
    assert held_out <= set().union(*map(combinations_of, rest))
    assert {(shape, colour) for shape in SHAPES for colour in COLOURS} - HELD_OUT_COLOURS <= shown
    assert {frozenset(pair) for pair in combinations(KINDS, 2)} - HELD_OUT_PAIRS <= shown
    assert {(kind, n) for kind in KINDS for n in (2, 3, 4)} - HELD_OUT_COUNTS <= shown


def test_what_is_held_out_is_spread_evenly() -> None:
    assert len(HELD_OUT_COLOURS) == 8
    assert sorted(colour for _, colour in HELD_OUT_COLOURS) == sorted(COLOURS)
    assert Counter(kind for pair in HELD_OUT_PAIRS for kind in pair) == Counter([*KINDS, *KINDS])
    assert {count for _, count in HELD_OUT_COUNTS} == {2, 3, 4}
    assert len(HELD_OUT_COUNTS) == 7


def is_true(caption: str, scene: Scene) -> bool:
    """Judge a caption by its words and the scene's record, as naively as can be."""
    for relation in ("left of", "right of", "above", "below", "and"):
        if f" {relation} " in caption:
            one, other = ([t for t in scene.things if is_called(part, t, 1)] for part in caption.split(f" {relation} "))
            if len(scene.things) != 2 or len(one) != 1 or len(other) != 1:
                return False
            x, y = one[0].x - other[0].x, one[0].y - other[0].y
            wide = abs(x) > 2 * abs(y)
            tall = abs(y) > 2 * abs(x)
            truths = {"left of": wide and x < 0, "right of": wide and x > 0}
            return ({"and": True, "above": tall and y < 0, "below": tall and y > 0} | truths)[relation]
    return all(is_called(caption, thing, len(scene.things)) for thing in scene.things)


def is_called(text: str, thing: Thing, count: int) -> bool:
    words = text.split()
    number = {"two": 2, "three": 3, "four": 4}.get(words[0], 1)
    noun = {"crosses": "cross", "strawberries": "strawberry"}.get(words[-1], words[-1])
    said = {word for word in words if word in COLOURS}
    return number == count and noun in (thing.kind, f"{thing.kind}s") and said <= {thing.colour}


def test_captions_are_true_and_cover_what_can_be_said() -> None:
    seldom = ("left", "above", "four", "orange", "single")
    kinds_of_captions: Counter[str] = Counter()
    for scene in scenes(1000, split="all"):
        texts = [caption.text for caption in captions_of(scene)]
        assert len(set(texts)) == len(texts)
        assert all(is_true(text, scene) for text in texts), texts
        kinds_of_captions.update(word for text in texts for word in seldom if word in text)
    assert min(kinds_of_captions[word] for word in seldom) > 20


def test_captions_of_one_scene_in_full() -> None:
    scene = Scene((Thing("square", "orange", 0.2, 0.5, 0.3), Thing("cat", None, 0.8, 0.5, 0.3)))
    weights = {caption.text: caption.weight for caption in captions_of(scene)}
    assert weights == {
        "a square and a cat": 0.5,
        "a cat and a square": 0.5,
        "a square left of a cat": 0.25,
        "an orange square left of a cat": 0.25,
        "a cat right of a square": 0.25,
        "a cat right of an orange square": 0.25,
    }
    diagonal = Scene((Thing("square", "red", 0.2, 0.2, 0.3), Thing("star", "blue", 0.8, 0.8, 0.3)))
    assert not any("of" in caption.text or "above" in caption.text for caption in captions_of(diagonal))


def test_the_loader_reads_scenes_with_one_caption_each() -> None:
    config = DataConfig(source=ScenesConfig(length=100, emoji=False, tinted=True))
    source = build_source(config.source)
    batch = Loader(source, config, 16, seed=3).batch(5)
    assert batch.images.shape == (16, 3, 32, 32)
    assert batch.labels is None
    assert batch.texts is not None
    assert not any(emoji in text for text in batch.texts for emoji in EMOJI)
    again = Loader(source, config, 16, seed=3).batch(5)
    assert batch.texts == again.texts
    assert len({tuple(source[i].image[0, 0]) for i in range(100)}) == len(BACKGROUNDS)


@pytest.mark.parametrize("change", [{"size": 8}, {"length": 0}, {"split": "test"}, {"seed": -1}])
def test_configs_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ScenesConfig(**change)  # type: ignore[arg-type]
