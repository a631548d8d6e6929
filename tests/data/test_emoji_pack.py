"""The embedded emoji: the invariants of the pack, and the choices of its config."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from pydantic import ValidationError

from leandit.data import EmojiConfig, build_source
from leandit.errors import LeanDiTError

FRUIT = {"fruit": ("food-fruit",), "animal": ("animal-mammal", "animal-bird")}


def keys(**choices: object) -> set[str]:
    source = build_source(EmojiConfig(**choices))
    return {source[i].key for i in range(len(source))}


def test_every_picture_is_a_distinct_32x32_on_white() -> None:
    source = build_source(EmojiConfig(split="all"))
    examples = [source[i] for i in range(len(source))]
    assert len(examples) == 2788
    assert {example.image.shape for example in examples} == {(32, 32, 3)}
    assert {example.image.dtype for example in examples} == {np.dtype(np.uint8)}
    assert len({example.key for example in examples}) == len(examples)
    corners = np.stack([example.image[0, 0] for example in examples])
    assert (corners > 200).all(axis=1).mean() > 0.8


def test_held_out_concepts_are_seen_in_exactly_one_style() -> None:
    train, held_out = keys(split="train"), keys(split="held_out")
    assert not train & held_out
    assert train | held_out == keys(split="all")
    styles = defaultdict(set)
    for key in train:
        name, style = key.rstrip(")").rsplit(" (", 1)
        styles[name].add(style)
    both = sum(len(s) == 2 for s in styles.values()) + len(held_out)
    assert 0.08 < len(held_out) / both < 0.13
    for key in held_out:
        name, style = key.rstrip(")").rsplit(" (", 1)
        assert styles[name] == {"noto", "fluent"} - {style}
    assert min(Counter(key.rsplit(" ", 1)[1] for key in held_out).values()) > len(held_out) / 3


def test_classes_gather_subcategories_in_the_given_order() -> None:
    source = build_source(EmojiConfig(classes=FRUIT, split="all"))
    assert source.class_names == ("fruit", "animal")
    label_of = {source[i].key: source[i].label for i in range(len(source))}
    assert label_of["red apple (noto)"] == label_of["banana (fluent)"] == 0
    assert label_of["owl (noto)"] == label_of["fox face (fluent)"] == 1
    assert not any("pizza" in key for key in label_of)


def test_labels_do_not_depend_on_split_or_style() -> None:
    every = build_source(EmojiConfig(split="all"))
    part = build_source(EmojiConfig(split="held_out", styles=("noto",)))
    assert part.class_names == every.class_names
    label_of = {every[i].key: every[i].label for i in range(len(every))}
    assert all(label_of[part[i].key] == part[i].label for i in range(len(part)))


def test_captions_and_exclusion() -> None:
    source = build_source(EmojiConfig(classes=FRUIT, styles=("noto",), split="all", exclude_names=("Apple",)))
    texts = {source[i].text for i in range(len(source))}
    assert "banana, noto emoji" in texts
    assert not any("apple" in str(text) for text in texts)


def test_mistakes_have_messages() -> None:
    with pytest.raises(LeanDiTError, match=r"'food-friut'\. Did you mean 'food-fruit'"):
        build_source(EmojiConfig(classes={"fruit": ("food-friut",)}))
    with pytest.raises(LeanDiTError, match="no emoji is selected"):
        build_source(EmojiConfig(exclude_names=("",)))
    with pytest.raises(ValidationError, match="given twice: food-fruit"):
        EmojiConfig(classes={"a": ("food-fruit",), "b": ("food-fruit",)})
