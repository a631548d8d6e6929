"""Configuration files: round trips, and errors that name file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from leandit.config import Config, read_tree, validate, write_config
from leandit.errors import LeanDiTError


class Run(Config):
    name: str = "ä"
    sizes: tuple[int, ...] = (1, 2)
    limit: int | None = None


def test_what_is_written_is_complete_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_config(Run(sizes=(3,)), path)
    assert read_tree(path) == {"name": "ä", "sizes": [3], "limit": None}
    assert validate(Run, read_tree(path), "file") == Run(sizes=(3,))


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('name = "x" # why\n[group]\nkey = [1, 2]\n', encoding="utf-8")
    assert read_tree(path) == {"name": "x", "group": {"key": [1, 2]}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.json", b'{\n  "a": 1,\n  b: 2\n}', r"bad\.json: not valid JSON: .*line 3"),
        ("bad.toml", b"a = 1\nb = \n", r"bad\.toml: not valid TOML: .*line 2"),
        ("list.json", b"[1, 2]", r"list\.json: a configuration is a table of keys, not a list"),
        ("latin.json", b'{"a": "\xe4"}', r"latin\.json: cannot be read as UTF-8 text"),
        ("long.json", b'{"a": ' + b"9" * 5000 + b"}", r"long\.json: not usable JSON: a number too long"),
        ("long.toml", b"a = " + b"9" * 5000, r"long\.toml: not usable TOML: a number too long"),
        ("deep.json", b'{"a": ' + b"[" * 100_000, r"deep\.json: not usable JSON: .*nested too deep"),
        ("deep.toml", b"a = " + b"[" * 100_000, r"deep\.toml: not usable TOML: .*nested too deep"),
        ("empty.json", b"", r"empty\.json: not valid JSON: .*line 1"),
    ],
)
def test_unreadable_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LeanDiTError, match=message):
        read_tree(tmp_path / name)


def test_absent_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(LeanDiTError, match="no such configuration file"):
        read_tree(tmp_path / "none.json")
    with pytest.raises(LeanDiTError, match="cannot be read"):
        read_tree(tmp_path)
    with pytest.raises(LeanDiTError, match="cannot be read"):
        read_tree(Path("a\0.json"))
