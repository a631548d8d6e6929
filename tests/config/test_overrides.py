"""`a.b.c=value`: JSON values, order, types that reset their group."""

from __future__ import annotations

from typing import Any

import pytest

from leandit.config import apply_overrides
from leandit.errors import LeanDiTError


def tree() -> dict[str, Any]:
    return {"name": "x", "optimizer": {"type": "adamw", "lr": 0.1, "inner": {"type": "a", "eps": 1}}, "moe": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3e-4", 3e-4),
        ("true", True),
        ("False", False),
        ("null", None),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ('{"a": 1}', {"a": 1}),
        ('"3"', "3"),
        ("plain text", "plain text"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_values_are_json_and_else_text(text: str, value: object) -> None:
    given = apply_overrides(tree(), [f"name={text}"])["name"]
    assert given == value
    assert type(given) is type(value)


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000, '{"a":' * 100_000], ids=["digits", "lists", "tables"])
def test_what_json_cannot_hold_is_text(text: str) -> None:
    assert apply_overrides(tree(), [f"name={text}"])["name"] == text


def test_a_tree_nested_too_deep_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(LeanDiTError, match="nested too deep"):
        apply_overrides(deep, [])


def test_the_last_of_two_values_holds_and_the_given_tree_is_left_alone() -> None:
    original = tree()
    assert apply_overrides(original, ["optimizer.lr=1", "optimizer.lr=2"])["optimizer"]["lr"] == 2
    assert original == tree()


@pytest.mark.parametrize("order", [1, -1])
def test_another_type_resets_its_group_whatever_the_order(order: int) -> None:
    overrides = ["optimizer.type=muon", "optimizer.lr=5"][::order]
    assert apply_overrides(tree(), overrides)["optimizer"] == {"type": "muon", "lr": 5}


@pytest.mark.parametrize("order", [1, -1])
def test_an_outer_type_does_not_undo_an_inner_one(order: int) -> None:
    overrides = ["optimizer.type=muon", "optimizer.inner.type=b", "optimizer.inner.eps=2"][::order]
    assert apply_overrides(tree(), overrides)["optimizer"] == {"type": "muon", "inner": {"type": "b", "eps": 2}}


def test_the_same_type_resets_nothing() -> None:
    assert apply_overrides(tree(), ["optimizer.type=adamw"]) == tree()


def test_an_absent_group_is_made_and_a_group_can_be_removed() -> None:
    assert apply_overrides(tree(), ["moe.k=2"])["moe"] == {"k": 2}
    assert apply_overrides(tree(), ["optimizer=null"])["optimizer"] is None


@pytest.mark.parametrize("text", ["name", "=3", "a..b=3", ".a=3", "a.=3"])
def test_what_is_no_override_is_refused(text: str) -> None:
    with pytest.raises(LeanDiTError, match=r"not of the form key.subkey=value"):
        apply_overrides(tree(), [text])


def test_a_value_has_no_keys() -> None:
    with pytest.raises(LeanDiTError, match=r"optimizer\.lr\.x: optimizer\.lr is a value, not a group"):
        apply_overrides(tree(), ["optimizer.lr.x=3"])


def test_items_of_lists_are_reached_by_number() -> None:
    listed = {"encoders": [{"type": "a", "path": "x"}, {"path": "y"}], "names": ["p", "q"]}
    changed = apply_overrides(listed, ["encoders.1.path=z", "names.0=r"])
    assert changed == {"encoders": [{"type": "a", "path": "x"}, {"path": "z"}], "names": ["r", "q"]}
    assert apply_overrides(listed, ["encoders.0.type=b"])["encoders"][0] == {"type": "b"}
    for bad in ("encoders.2.path=z", "encoders.path=z", "names.-1=z", "encoders.type=b"):
        with pytest.raises(LeanDiTError, match=r"is a list of 2; its items are (encoders|names)\.0 and so on"):
            apply_overrides(listed, [bad])
    with pytest.raises(LeanDiTError, match=r"names\.0 is a value"):
        apply_overrides(listed, ["names.0.x=z"])
