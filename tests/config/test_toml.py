"""A config as TOML with comments reads back as the same config."""

from __future__ import annotations

from pathlib import Path

import pytest

from leandit.config import Config, read_tree
from leandit.config.toml import to_toml
from leandit.presets import PRESETS, run_config


class Leaf(Config):
    value: float | None = 1.0
    """A number."""


class Tree(Config):
    text: str = "x"
    names: dict[str, tuple[str, ...]] | None = None
    leaves: tuple[Leaf, ...] = ()
    leaf: Leaf | None = Leaf()
    """Another node."""


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_reads_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(to_toml(run_config(name)), encoding="utf-8")
    assert run_config(str(path)) == run_config(name)


@pytest.mark.parametrize(
    "tree",
    [
        Tree(leaf=None),
        Tree(text='"quoted"\n\\ # no comment \x7f ü', names={"a.b c": ("null", "x"), "plain": ()}),
        Tree(leaves=(Leaf(value=None), Leaf(value=1e-30)), leaf=Leaf(value=None)),
        Tree(leaves=()),
    ],
)
def test_what_toml_makes_hard_reads_back(tmp_path: Path, tree: Tree) -> None:
    path = tmp_path / "config.toml"
    path.write_text(to_toml(tree), encoding="utf-8")
    assert Tree.model_validate(read_tree(path)) == tree


def test_comments_are_the_docstrings() -> None:
    text = to_toml(Tree())
    assert "# Another node.\n[leaf]\n# A number.\nvalue = 1.0\n" in text


def test_null_as_text_is_a_matter_of_toml_alone(tmp_path: Path) -> None:
    for name, text in (
        ("a.toml", 'x = "null"\n[y]\nz = ["null"]\n'),
        ("a.json", '{"x": "null", "y": {"z": ["null"]}}'),
    ):
        (tmp_path / name).write_text(text)
    assert read_tree(tmp_path / "a.toml") == {"x": None, "y": {"z": ["null"]}}
    assert read_tree(tmp_path / "a.json") == {"x": "null", "y": {"z": ["null"]}}
