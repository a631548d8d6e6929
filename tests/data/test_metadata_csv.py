"""metadata.csv is read as metadata.jsonl with the same contents, whatever the texts are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leandit.data import MetadataFolderConfig, build_source
from leandit.errors import LeanDiTError

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda text: text.strip() != ""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    for number in range(3):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / f"{number}.png")
    return root


def write(folder: Path, text: str) -> MetadataFolderConfig:
    (folder / "metadata.jsonl").unlink(missing_ok=True)
    (folder / "metadata.csv").write_text(text, encoding="utf-8", newline="")
    return MetadataFolderConfig(path=str(folder))


def message(folder: Path, text: str) -> str:
    with pytest.raises(LeanDiTError) as caught:
        build_source(write(folder, text))
    return str(caught.value)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(TEXTS, min_size=3, max_size=3), named=st.booleans())
def test_csv_and_json_lines_are_the_same_set(folder: Path, texts: list[str], named: bool) -> None:
    labels = ["cat", "dog", "cat"] if named else [2, 0, 1]
    rows = [(f"{place}.png", text, label) for place, (text, label) in enumerate(zip(texts, labels, strict=True))]
    (folder / "metadata.jsonl").unlink(missing_ok=True)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file_name", "text", "label"), *rows])
    one = build_source(MetadataFolderConfig(path=str(folder)))
    (folder / "metadata.csv").unlink()
    lines = [json.dumps(dict(zip(("file_name", "text", "label"), row, strict=True))) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    other = build_source(MetadataFolderConfig(path=str(folder)))
    assert one.fingerprint == other.fingerprint
    assert one.class_names == other.class_names == (("cat", "dog") if named else ("0", "1", "2"))
    assert [one[n].text for n in range(3)] == texts
    assert [one[n].label for n in range(3)] == ([0, 1, 0] if named else labels)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "there is no column 'file_name' (the columns are )"),
        ("name,text\n0.png,x\n", "there is no column 'file_name' (the columns are name, text)"),
        ("file_name,text,text\n0.png,x,y\n", "the column 'text' is there twice"),
        ("file_name,text\n", "no lines"),
        ("file_name,text\n0.png,a, b\n", "line 2: 3 values for 2 columns; put commas in quotes"),
        ("file_name,text\n0.png\n", "line 2: 1 values for 2 columns"),
        ('file_name,text\n0.png,"a\n', "not valid CSV"),
        ("file_name,text\n0.png,a\n1.png,\n", "line 3: no 'text', though other lines have one"),
        ("file_name,label\n0.png,1\n1.png,cat\n", "line 3: label 'cat' is a text, but line 2 has a number"),
        ("file_name,label\n9.png,1\n", "line 2: no such file '9.png'"),
        ("file_name,label\n0.png,-1\n1.png,1\n", "line 3: label 1 is a number, but line 2 has a text"),
    ],
)
def test_mistakes_name_the_line(folder: Path, text: str, part: str) -> None:
    found = message(folder, text)
    assert "metadata.csv" in found
    assert part in found


def test_two_metadata_files_are_refused(folder: Path) -> None:
    config = write(folder, "file_name,text\n0.png,a\n")
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png"}')
    with pytest.raises(LeanDiTError, match="keep one of them"):
        build_source(config)
