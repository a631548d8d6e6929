"""Docstrings of fields: found in the source and in bases, there for each setting of a run, told by `describe`."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Literal

import pytest
from pydantic import Field

from leandit.config import Config, Fact, Registry, facts_at
from leandit.config.describe import describe
from leandit.config.docs import class_doc, field_doc
from leandit.config.fields import find, walk
from leandit.errors import LeanDiTError
from leandit.run import RunConfig

# Their docstrings come with the next form of the layer.


class Shape(Config):
    """What all shapes have."""

    name: str = "x"
    """How it is
    called."""
    size: Annotated[float, Fact.MAY_CHANGE] = Field(1.0, gt=0, le=9)
    silent: int = 0


SHAPES = Registry("shape", Shape)


@SHAPES.register
class Circle(Shape):
    """Round.

    A second paragraph.
    """

    type: Literal["circle"] = "circle"
    size: float = 2.0
    """Its radius."""


@SHAPES.register
class Box(Shape):
    type: Literal["box"] = "box"
    inner: Circle | None = None
    """Optional."""


class Drawing(Config):
    """A drawing."""

    shape: Annotated[Shape, SHAPES] = Circle()
    """The one shape."""
    others: Annotated[tuple[Circle, ...], Fact.BACKEND] = ()
    """More of them."""


def test_docstrings_come_from_the_class_or_the_nearest_base() -> None:
    assert field_doc(Shape, "name") == field_doc(Circle, "name") == "How it is called."
    assert field_doc(Circle, "size") == "Its radius."
    assert field_doc(Box, "size") is None
    assert field_doc(Shape, "silent") is None
    assert field_doc(Circle, "type") == class_doc(Circle) == "Round."
    assert field_doc(Box, "type") is None  # a base's docstring does not tell what the kind is


def test_every_kind_of_every_node_is_walked() -> None:
    keys = [field.key for field in walk(Drawing)]
    assert {"shape.size", "shape.inner.size", "others.N.name"} <= set(keys)
    assert keys.count("shape.size") == 2
    assert [field.owner for field in find(Drawing, "others.3.size")] == [Circle]
    assert find(Drawing, "others.size") == find(Drawing, "others.N.size")


def test_facts_hold_for_what_is_below_and_end_with_the_config() -> None:
    drawing = Drawing(shape=Box(inner=Circle()), others=(Circle(),))
    assert facts_at(drawing, "others.0.name") == {Fact.BACKEND}
    assert facts_at(drawing, "shape.size") == {Fact.MAY_CHANGE}
    assert facts_at(drawing, "shape.inner.size") == facts_at(drawing, "shape.x.y") == set()
    assert facts_at(drawing, "others.5.size") == {Fact.BACKEND}


def test_a_description_has_all_that_a_person_asks() -> None:
    one, other = describe(Drawing, "shape.size").split("\n\nshape.size")
    assert "Its radius." in other
    assert "number > 0, <= 9" in one
    assert "on resume  may change" in one
    table = describe(Drawing, "shape")
    assert "type = circle: Round." in table
    assert "required" not in table
    with pytest.raises(LeanDiTError, match=r"shape\.nmae: unknown key\. Did you mean 'name'\?"):
        describe(Drawing, "shape.nmae")
    with pytest.raises(LeanDiTError, match=r"inner: unknown key\. Did you mean 'shape\.inner'\?"):
        describe(Drawing, "inner")
    for key in ("", "3", "shape.size.x"):
        with pytest.raises(LeanDiTError, match="unknown key"):
            describe(Drawing, key)


def test_every_setting_of_a_run_is_documented() -> None:
    # Other tests register kinds of their own.
    ours = [field for field in walk(RunConfig) if field.owner.__module__.startswith("leandit.")]
    silent = {f"{field.owner.__name__}.{field.name}" for field in ours if not field.doc}
    assert silent == set()
    assert {field.key for field in ours if field.doc and not field.doc.endswith(".")} == set()


def test_no_source_is_read_until_it_is_asked_for() -> None:
    script = """
import inspect, sys
def getsource(found, original=inspect.getsource):
    assert not getattr(found, "__module__", "").startswith("leandit"), found
    return original(found)
inspect.getsource = getsource
import leandit.presets
leandit.presets.run_config("tiny", ["train.steps=3"])
assert "leandit.config.describe" not in sys.modules
assert "leandit.config.schema" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
