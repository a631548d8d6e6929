"""Configs are complete, frozen and strict; every mistake is told at once, with its key and the way out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from leandit.config import Config, diff, validate
from leandit.errors import LeanDiTError


class Circle(Config):
    type: Literal["circle"] = "circle"
    radius: float = Field(1.0, gt=0)


class Square(Config):
    type: Literal["square"] = "square"
    side: float = 1.0
    circle: Circle = Circle()


class Drawing(Config):
    title: str
    shape: Annotated[Circle | Square, Field(discriminator="type")] = Circle()
    layers: tuple[Circle, ...] = ()
    frame: Square | None = None
    colour: Literal["red", "green"] = "red"
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def mistakes(tree: dict[str, Any]) -> list[str]:
    """The lines after the heading."""
    with pytest.raises(LeanDiTError) as caught:
        validate(Drawing, tree, "here")
    heading, *lines = str(caught.value).splitlines()
    assert heading.startswith(f"here: {len(lines)} error{'s' if len(lines) > 1 else ''} ")
    return [line.strip() for line in lines]


def test_defaults_fill_in() -> None:
    drawing = validate(Drawing, {"title": "t", "shape": {"type": "square"}}, "here")
    assert drawing == Drawing(title="t", shape=Square())


def test_every_mistake_is_told_at_once() -> None:
    lines = mistakes({"colour": "gren", "shape": {"type": "circle", "radius": -1}, "lov": 3})
    assert len(lines) == 4
    assert "title: missing; give it a value" in lines
    assert "lov: unknown key. Did you mean 'low'?" in lines
    assert any(line.startswith("colour: 'gren' is not one of red, green. Did you mean 'green'?") for line in lines)
    assert "shape.radius: must be above 0 (given: -1)" in lines


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ({"shape": {"type": "square", "sied": 1}}, "shape.sied: unknown key. Did you mean 'side'?"),
        ({"shape": {"type": "circle", "radios": 1}}, "shape.radios: unknown key. Did you mean 'radius'?"),
        (
            {"shape": {"type": "square", "circle": {"radius": 0}}},
            "shape.circle.radius: must be above 0 (given: 0)",
        ),
        ({"frame": {"sidde": 1}}, "frame.sidde: unknown key. Did you mean 'side'?"),
        ({"layers": [{}, {"radios": 1}]}, "layers.1.radios: unknown key. Did you mean 'radius'?"),
        ({"shape": {"type": "sqare"}}, "shape: type = 'sqare' is not one of circle, square. Did you mean 'square'?"),
        ({"shape": {"side": 1}}, "shape: type is missing; choose one of circle, square"),
        ({"radius": 1}, "radius: unknown key. Did you mean 'shape.radius' or 'frame.circle.radius'?"),
        ({"qwxyz": 1}, "qwxyz: unknown key."),
        ({"low": 5}, "low is above high"),
    ],
)
def test_keys_are_those_that_a_person_writes(tree: dict[str, Any], line: str) -> None:
    assert mistakes({"title": "t", **tree}) == [line]


def test_an_unknown_kind_lists_the_kinds() -> None:
    (line,) = mistakes({"title": "t", "shape": {"type": "circel"}})
    assert line == "shape: type = 'circel' is not one of circle, square. Did you mean 'circle'?"


def test_nothing_infinite_and_no_wrong_type() -> None:
    assert mistakes({"title": "t", "shape": {"type": "circle", "radius": float("nan")}})
    assert mistakes({"title": "t", "low": "many"})[0].startswith("low: ")


@pytest.mark.parametrize("value", [2**20_000, [2**20_000], "9" * 5000], ids=["number", "listed", "text"])
def test_numbers_too_long_to_print(value: object) -> None:
    for key in ("low", "title", "layers"):
        lines = mistakes({"title": "t", "high": -1, key: value})
        assert max(len(line) for line in lines) < 300


def test_values_nested_too_deep() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for key in ("title", "low", "layers", "shape"):
        with pytest.raises(LeanDiTError):
            validate(Drawing, {"title": "t", key: deep}, "here")


def test_configs_are_frozen_and_replace_validates() -> None:
    drawing = Drawing(title="t")
    with pytest.raises(ValidationError, match="frozen"):
        drawing.title = "u"  # type: ignore[misc]
    assert drawing.replace(title="u") == Drawing(title="u")
    assert drawing.title == "t"
    with pytest.raises(ValidationError, match="low is above high"):
        drawing.replace(low=3)


def test_diff_names_every_leaf_that_differs() -> None:
    old = Drawing(title="t", low=0)
    new = Drawing(title="t", low=1, shape=Square(side=2.0))
    assert diff(old, old) == []
    assert diff(old, new) == [
        ("low", 0, 1),
        ("shape.circle.radius", None, 1.0),
        ("shape.circle.type", None, "circle"),
        ("shape.radius", 1.0, None),
        ("shape.side", None, 2.0),
        ("shape.type", "circle", "square"),
    ]
