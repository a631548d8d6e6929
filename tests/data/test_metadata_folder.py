"""metadata.jsonl, good and bad: all bad lines are reported at once, by number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from leandit.data import MetadataFolderConfig, build_source
from leandit.data.metadata_folder import MetadataFolderSource
from leandit.errors import LeanDiTError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    (root / "deep").mkdir(parents=True)
    for grey, name in enumerate(["a.png", "b.png", "deep/c.png"]):
        Image.new("RGB", (4, 4), (grey, grey, grey)).save(root / name)
    return root


def source(folder: Path, *lines: object, **options: object) -> MetadataFolderSource:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return build_source(MetadataFolderConfig(path=str(folder), **options))  # type: ignore[return-value]


def message(folder: Path, *lines: object, **options: object) -> str:
    with pytest.raises(LeanDiTError) as caught:
        source(folder, *lines, **options)
    assert "metadata.jsonl" in str(caught.value)
    return str(caught.value)


def line(name: str, **values: object) -> dict[str, object]:
    return {"file_name": name, **values}


def test_captions_labels_and_nested_names(folder: Path) -> None:
    opened = source(
        folder,
        "\ufeff" + json.dumps(line("deep/c.png", text="cé\u2028", label=2)),
        "",
        line("a.png", text=" a ", label=0),
    )
    assert opened.class_names == ("0", "1", "2")
    first, second = opened[0], opened[1]
    assert (first.key, first.text, first.label, first.image.max()) == ("deep/c.png", "cé\u2028", 2, 2)
    assert (second.key, second.text, second.label) == ("a.png", " a ", 0)


def test_text_labels_are_sorted_or_follow_class_names(folder: Path) -> None:
    lines = [line("a.png", label="dog"), line("b.png", label="cat")]
    opened = source(folder, *lines)
    assert (opened.class_names, opened[0].label, opened[1].label) == (("cat", "dog"), 1, 0)
    opened = source(folder, *lines, class_names=("dog", "emu", "cat"))
    assert (opened[0].label, opened[1].label) == (0, 2)
    assert "line 1: label 'dog' is not in class_names. Did you mean 'dogs'?" in message(
        folder, *lines, class_names=("dogs", "cat")
    )
    assert "line 2: label 3 has no name" in message(
        folder, line("a.png", label=0), line("b.png", label=3), class_names=("x", "y")
    )


def test_other_keys(folder: Path) -> None:
    opened = source(folder, line("a.png", caption="hi", fine=1), text_key="caption", label_key="fine")
    assert (opened[0].text, opened[0].label) == ("hi", 1)
    plain = source(folder, line("a.png", caption="hi"))
    assert (plain[0].text, plain[0].label, plain.class_names) == (None, None, ())


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ('{"file_name": "b.png"', "line 2: not valid JSON: Expecting ',' delimiter at column 22"),
        ("[" * 100_000, "line 2: invalid JSON"),
        ('{"file_name": "b.png", "n": ' + "9" * 9999 + "}", "line 2: invalid JSON"),
        ("[1]", "line 2: not an object"),
        ({"text": "x"}, "line 2: 'file_name' is missing"),
        (line(""), "line 2: 'file_name' is missing"),
        (line("none.png"), "line 2: no such file 'none.png'"),
        (line("deep"), "line 2: no such file 'deep'"),
        (line("../set/b.png"), "line 2: '../set/b.png' is outside the folder"),
        (line("/etc/hostname"), "line 2: '/etc/hostname' is outside the folder"),
        (line("a\0b"), "line 2: 'a\\x00b' is not a valid file name"),
        (line("n" * 5000), "is not a valid file name"),
        (line("\ud800.png"), "is not a valid file name"),
        (line("./a.png"), "line 2: './a.png' is already named in line 1"),
        (line("b.png", text=3), "line 2: 'text' is a number; write a text"),
        (line("b.png", text=""), "line 2: 'text' is empty"),
        (line("b.png", label=1.5), "line 2: 'label' is a fraction"),
        (line("b.png", label=True), "line 2: 'label' is true or false"),
        (line("b.png", label=-1), "line 2: label -1 is out of range"),
        (line("b.png", label=10**9), "is out of range"),
    ],
)
def test_one_bad_line(folder: Path, bad: object, expected: str) -> None:
    assert expected in message(folder, line("a.png"), bad)


def test_files_that_are_links_or_empty(folder: Path) -> None:
    outside = folder.parent / "outside.png"
    Image.new("RGB", (4, 4)).save(outside)
    (folder / "link.png").symlink_to(outside)
    (folder / "empty.png").write_bytes(b"")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    report = message(folder, line("link.png"), line("empty.png"), line("loop.png"))
    assert "line 1: 'link.png' is a link to a file outside the folder" in report
    assert "line 2: 'empty.png' is an empty file" in report
    assert "line 3: 'loop.png' is not a valid file name" in report or "line 3: no such file" in report


def test_missing_and_mixed_labels(folder: Path) -> None:
    report = message(folder, line("a.png", label=1, text="x"), line("b.png", label="one"), line("deep/c.png", text="y"))
    assert "line 3: no 'label', though other lines have one" in report
    assert "line 2: no 'text', though other lines have one" in report
    assert "line 2: label 'one' is a text, but line 1 has a number" in report
    assert "3 problems" in report


def test_ten_problems_are_listed_and_the_rest_counted(folder: Path) -> None:
    report = message(folder, *[line(f"{i}.png") for i in range(25)])
    assert "25 problems" in report
    assert "line 10: no such file '9.png'" in report
    assert "line 11" not in report
    assert report.endswith("and 15 more")


def test_missing_empty_or_binary_metadata(folder: Path) -> None:
    with pytest.raises(LeanDiTError, match=r"metadata.jsonl: no such file; .*class_folder"):
        build_source(MetadataFolderConfig(path=str(folder)))
    assert "no lines" in message(folder, "", "  ")
    (folder / "metadata.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(LeanDiTError, match="cannot be read as UTF-8"):
        build_source(MetadataFolderConfig(path=str(folder)))
