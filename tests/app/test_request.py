"""What comes over HTTP is judged field by field, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest

from leandit.app.request import FIELDS, check_fields, read_request
from leandit.app.runs import ServedRun
from leandit.errors import LeanDiTError

GOOD = {"run": "run", "prompt": "", "label": "cat", "seed": 3, "steps": 4, "guidance": 2.0, "budget": 1.0}


def values(**changed: Any) -> tuple[Any, ...]:
    return tuple({**GOOD, **changed}[field] for field in FIELDS)


def test_a_good_request_is_read(served: dict[str, ServedRun]) -> None:
    request = read_request(served, values(label=1, seed=9.0, steps=3.0, budget=1.5))
    assert (request.choice, request.seed, request.budget) == (1, 9, 1.5)
    assert (request.settings.sampler.steps, request.settings.guidance.scale) == (3, 2.0)
    assert read_request(served, values(prompt="x" * 10_000)).choice == 1


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("run", "other", "unknown run 'other'"),
        ("run", None, "nothing is not a name"),
        ("run", {"a": 1}, "an object is not a name"),
        ("label", "dog", "one of heart, cat"),
        ("label", "9" * 5000, "from 0 to 1"),
        ("label", 10**30, "from 0 to 1"),
        ("label", -1, "from 0 to 1"),
        ("label", ["cat"], "a list is neither"),
        ("label", True, "neither a name nor a number"),
        ("seed", -1, "out of range"),
        ("seed", 2**53, "out of range"),
        ("seed", 0.5, "whole number"),
        ("seed", "7", "a text is not a number"),
        ("seed", float("nan"), "nan is out of range"),
        ("steps", 0, "out of range"),
        ("steps", 201, "out of range"),
        ("steps", 10**30, "out of range"),
        ("steps", None, "nothing is not a number"),
        ("guidance", float("inf"), "inf is out of range"),
        ("guidance", -0.1, "out of range"),
        ("guidance", 20.5, "out of range"),
        ("budget", 0.4, "out of range"),
        ("budget", 2.1, "out of range"),
        ("budget", [], "a list is not a number"),
    ],
)
def test_each_field_is_named(served: dict[str, ServedRun], field: str, value: Any, words: str) -> None:
    problems = check_fields(served, values(**{field: value}))
    assert [*problems] == [field]
    assert words in problems[field]
    assert len(problems[field]) < 300
    with pytest.raises(LeanDiTError):
        read_request(served, values(**{field: value}))


def test_all_that_is_wrong_is_told_at_once(served: dict[str, ServedRun]) -> None:
    assert [*check_fields(served, values(seed="x", steps=-3, budget=7))] == ["seed", "steps", "budget"]
