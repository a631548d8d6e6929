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


def test_yaml_is_read_as_people_expect_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "preset: tiny\nlr: 1e-3\nother: 1.5E+2\nname: no\non: off\ntime: 1:30\nzero: 007\nfull: true\nnone: null\n"
        "empty:\nlist: [1, -2, .5, a b]\nquoted: '3'\ndate: 2026-11-26\nnested:\n  key: x # why\n",
        encoding="utf-8",
    )
    assert read_tree(path) == {
        **{"preset": "tiny", "lr": 1e-3, "other": 150.0, "name": "no", "on": "off", "time": "1:30", "zero": 7},
        **{"full": True, "none": None, "empty": None, "list": [1, -2, 0.5, "a b"], "quoted": "3"},
        **{"date": "2026-11-26", "nested": {"key": "x"}},
    }


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
        ("bad.yaml", b"a: 1\nb: [1, 2\n", r"bad\.yaml: not usable YAML: .*, line 3"),
        ("tab.yml", b"a:\n\tb: 1\n", r"tab\.yml: not usable YAML: .*, line 2"),
        ("twice.yaml", b"a: 1\nb: 2\na: 3\n", r"twice\.yaml: not usable YAML: the key 'a' is there twice, line 3"),
        ("bomb.yaml", b"a: &a [1, 1]\nb: [*a, *a]\n", r"bomb\.yaml: not usable YAML: anchors .*, line 1"),
        ("alias.yaml", b"a: 1\nb: *c\n", r"alias\.yaml: not usable YAML: anchors .*, line 2"),
        (
            "code.yaml",
            b"a: !!python/object/apply:os.getcwd []\n",
            r"code\.yaml: not usable YAML: tags .*, line 1",
        ),
        ("set.yaml", b"a: 1\nprompts: !!set {a, b}\n", r"set\.yaml: not usable YAML: tags .*set.*, line 2"),
        ("bool.yaml", b"a: !!bool maybe\n", r"bool\.yaml: not usable YAML: tags .*bool.*, line 1"),
        ("float.yaml", b"a: !!float abc\n", r"float\.yaml: not usable YAML: tags .*float.*, line 1"),
        ("own.yaml", b"a: !mine 1\n", r"own\.yaml: not usable YAML: tags .*!mine.*, line 1"),
        ("listkey.yaml", b"? [a, b]\n: c\n", r"listkey\.yaml: not usable YAML: a key that is no text, line 1"),
        ("mapkey.yaml", b"a:\n  ? {a: b}\n  : c\n", r"mapkey\.yaml: not usable YAML: a key that is no text, line 2"),
        ("escape.yaml", b'a: "\\U00110000"\n', r"escape\.yaml: not usable YAML: a code such as"),
        ("list.yaml", b"- 1\n- 2\n", r"list\.yaml: a configuration is a table of keys, not a list"),
        ("empty.yaml", b"", r"empty\.yaml: a configuration is a table of keys, not a NoneType"),
        ("deep.yaml", b"a: " + b"[" * 100_000, r"deep\.yaml: not usable YAML"),
        ("two.yaml", b"a: 1\n---\nb: 2\n", r"two\.yaml: not usable YAML: .*, line 2"),
        ("long.yaml", b"a: " + b"9" * 5000, r"long\.yaml: not usable YAML: a number too long"),
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
