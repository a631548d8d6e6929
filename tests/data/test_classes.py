"""Labels: a number is a number, a name is a name, and no two classes can be confused, whatever reads them."""

from __future__ import annotations

import json
import struct
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from leandit.data import (
    ClassFolderConfig,
    EmojiConfig,
    IdxConfig,
    LatentsConfig,
    MetadataFolderConfig,
    ParquetConfig,
    WebDatasetConfig,
    build_source,
)
from leandit.data.classes import check_class_names, check_same_classes, read_number
from leandit.errors import LeanDiTError

CONFUSED = [
    (("cat", "Cat"), "differ in case"),
    (("caf\u00e9", "cafe\u0301"), "differ in case, spaces or Unicode form only"),
    (("big cat", "big  cat"), "differ in case, spaces"),
    (("\ufb01sh", "fish"), "Unicode form"),
    (("cat", "cat"), "are the same"),
    ((" cat", "dog"), "a space at its beginning"),
    (("", "dog"), "is empty"),
    (("\x1b[31mcat", "dog"), "cannot be printed"),
    (("cat\u202e", "dog"), "cannot be printed"),
    (("cat\n", "dog"), "cannot be printed"),
    (("1", "0"), "is also the number of class 1"),
    (("01", "x"), "is also the number of class 1"),
]


@pytest.mark.parametrize(("names", "part"), CONFUSED, ids=[ascii(names) for names, _ in CONFUSED])
def test_names_that_can_be_confused_are_refused(names: tuple[str, ...], part: str) -> None:
    with pytest.raises(LeanDiTError) as caught:
        check_class_names(names, "data.source")
    assert part in str(caught.value)
    assert str(caught.value).startswith("data.source: ")
    assert str(caught.value).isprintable()


def test_names_that_are_no_unicode_are_refused() -> None:
    with pytest.raises(LeanDiTError, match="is not valid Unicode"):
        check_class_names(("\udce9",), "data.source")


@pytest.mark.parametrize("names", [("0", "1", "2"), ("00", "01"), ("1990", "2000"), ("cat", "dog 2"), ("猫", "犬"), ()])
def test_names_that_are_clear_are_accepted(names: tuple[str, ...]) -> None:
    check_class_names(names, "data.source")


@given(st.lists(st.text("abAB \u00e9e\u030123", min_size=1, max_size=3), min_size=1, max_size=5))
def test_accepted_names_differ_in_any_reading(names: list[str]) -> None:
    try:
        check_class_names(names, "k")
    except LeanDiTError:
        return
    read = {unicodedata.normalize("NFKC", name).casefold().replace(" ", "") for name in names if " " not in name}
    assert len(read) == len([name for name in names if " " not in name])
    for label, name in enumerate(names):
        assert not name.isascii() or not name.isdigit() or int(name) == label or int(name) >= len(names)


@given(st.text(max_size=12))
def test_only_ascii_digits_are_numbers(text: str) -> None:
    digits = bool(text) and set(text) <= set("0123456789") and len(text.lstrip("0")) < 10
    assert read_number(text) == (int(text) if digits else None)


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def idx(folder: Path, names: tuple[str, ...]) -> IdxConfig:
    (folder / "images").write_bytes(struct.pack(">4I", 0x803, 2, 4, 4) + bytes(32))
    (folder / "labels").write_bytes(struct.pack(">2I", 0x801, 2) + bytes([0, 1]))
    return IdxConfig(images=str(folder / "images"), labels=str(folder / "labels"), class_names=names)


def metadata(folder: Path, names: tuple[str, ...], *labels: Any) -> MetadataFolderConfig:
    lines = []
    for place, label in enumerate(labels or (0, 1)):
        picture(folder / f"{place}.png")
        lines.append(json.dumps({"file_name": f"{place}.png", "label": label, "caption": "x"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return MetadataFolderConfig(path=str(folder), class_names=names or None)


def latents(folder: Path, names: tuple[str, ...]) -> LatentsConfig:
    save_file({"latents": np.zeros((2, 4, 2, 2), np.float32)}, folder / "a.safetensors")
    (folder / "a.jsonl").write_text('{"label": 0}\n{"label": 1}\n')
    return LatentsConfig(path=str(folder), class_names=names)


def shard(folder: Path, names: tuple[str, ...]) -> WebDatasetConfig:
    import tarfile

    with tarfile.open(folder / "a.tar", "w") as tar:
        for number in (0, 1):
            (folder / f"{number}.cls").write_text(str(number))
            tar.add(picture(folder / f"{number}.png"), f"{number}.png")
            tar.add(folder / f"{number}.cls", f"{number}.cls")
    return WebDatasetConfig(paths=(str(folder / "a.tar"),), class_names=names)


def table(path: Path, names: tuple[str, ...] | None = None, hub: list[str] | None = None, **columns: Any) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    png = picture(path.with_suffix(".png")).read_bytes()
    rows = pa.table({"image": [png, png], **{"label": [0, 1], **columns}})
    features = {"info": {"features": {"label": {"names": hub}}}}
    metadata = {"huggingface": json.dumps(features)} if hub else None
    pq.write_table(rows.replace_schema_metadata(metadata), path)
    return path


def parquet(folder: Path, names: tuple[str, ...]) -> ParquetConfig:
    return ParquetConfig(paths=(str(table(folder / "a.parquet")),), class_names=names)


@pytest.mark.parametrize("reader", [idx, metadata, latents, shard, parquet], ids=lambda reader: reader.__name__)
def test_every_reader_checks_its_names_at_the_start(reader: Any, tmp_path: Path) -> None:
    assert build_source(reader(tmp_path, ("cat", "dog"))).class_names == ("cat", "dog")
    for names, part in CONFUSED:
        with pytest.raises(LeanDiTError, match=part):
            build_source(reader(tmp_path, names))


def test_folders_and_emoji_check_their_names(tmp_path: Path) -> None:
    for name in ("cat", "CAT"):
        picture(tmp_path / name / "a.png")
    with pytest.raises(LeanDiTError, match="differ in case"):
        build_source(ClassFolderConfig(path=str(tmp_path)))
    with pytest.raises(LeanDiTError, match="differ in case"):
        build_source(EmojiConfig(classes={"cat": ("cat-face",), "Cat": ("heart",)}))


def test_folders_of_numbers_out_of_order_are_refused(tmp_path: Path) -> None:
    for number in range(11):  # 0, 1, 10, 2, ...
        picture(tmp_path / str(number) / "a.png")
    with pytest.raises(LeanDiTError, match="class 2, '10', is also the number of class 10"):
        build_source(ClassFolderConfig(path=str(tmp_path)))


@pytest.mark.parametrize("label", ["3", "0", "007"])
def test_a_number_in_quotes_is_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(LeanDiTError, match=r"(?s)line 1: 'label' is the text '\d+', which is a number too"):
        build_source(metadata(tmp_path, (), label, "x"))


@pytest.mark.parametrize("field", ["text_key", "label_key"])
def test_a_key_that_is_asked_for_and_nowhere_lists_what_is_there(tmp_path: Path, field: str) -> None:
    config = metadata(tmp_path, ()).replace(**{field: "captoin"})
    with pytest.raises(LeanDiTError) as caught:
        build_source(config)
    for part in ("no line has 'captoin'", "caption, file_name, label", "Did you mean 'caption'?", f"source.{field}"):
        assert part in str(caught.value)
    (tmp_path / "latents").mkdir()
    stored = latents(tmp_path / "latents", ("a", "b")).replace(**{field: "lable"})
    with pytest.raises(LeanDiTError, match=r"no line has .*'lable' .the keys are label"):
        build_source(stored)


@pytest.mark.parametrize("field", ["text_column", "label_column"])
def test_a_column_that_is_asked_for_and_nowhere_lists_what_is_there(tmp_path: Path, field: str) -> None:
    path = table(tmp_path / "a.parquet", caption=["a", "b"])
    with pytest.raises(LeanDiTError, match=r"(?s)no column 'captoin' \(it has image, label, caption\).*'caption'"):
        build_source(ParquetConfig(paths=(str(path),), **{field: "captoin"}))
    assert build_source(ParquetConfig(paths=(str(path),)))[0].captions == ()


def test_files_that_disagree_are_named(tmp_path: Path) -> None:
    paths = (str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"))
    table(tmp_path / "a.parquet")
    table(tmp_path / "b.parquet", text=["a", "b"])
    with pytest.raises(LeanDiTError, match=r"a\.parquet: no column 'text'"):
        build_source(ParquetConfig(paths=paths))
    table(tmp_path / "a.parquet", hub=["cat", "dog"])
    table(tmp_path / "b.parquet", hub=["dog", "cat"])
    with pytest.raises(LeanDiTError, match=r"b\.parquet: its class names \(dog, cat\) are not those of a\.parquet"):
        build_source(ParquetConfig(paths=paths))
    assert build_source(ParquetConfig(paths=paths, class_names=("x", "y"))).class_names == ("x", "y")


def test_names_for_data_without_labels_are_refused(tmp_path: Path) -> None:
    config = idx(tmp_path, ("cat", "dog")).replace(labels=None)
    with pytest.raises(LeanDiTError, match=r"data.validation.class_names: the data have no labels"):
        build_source(config, "data.validation")


def test_messages_name_the_setting_that_is_theirs(tmp_path: Path) -> None:
    with pytest.raises(LeanDiTError) as caught:
        build_source(ClassFolderConfig(path=str(tmp_path / "none")), "data.validation")
    assert "correct data.validation.path" in str(caught.value)
    assert "data.source" not in str(caught.value)


@pytest.mark.parametrize(
    ("held_out", "part"),
    [
        (("cat", "dog"), None),
        (("cat",), None),
        (("dog",), "class 0 is 'dog' here and 'cat' there"),
        (("cat", "dog", "emu"), "class 2 is 'emu' here and unknown there"),
        ((), "no labels"),
    ],
)
def test_held_out_classes_are_those_of_training(held_out: tuple[str, ...], part: str | None) -> None:
    if part is None:
        check_same_classes(("cat", "dog"), held_out, "data.validation")
        return
    with pytest.raises(LeanDiTError, match=part):
        check_same_classes(("cat", "dog"), held_out, "data.validation")


def test_a_label_is_a_number_or_a_name_in_every_interface(tiny_run: Path) -> None:
    from leandit import load

    run = load(tiny_run)  # its classes are heart and cat
    for choice, label in [(0, 0), (1, 1), ("0", 0), ("01", 1), ("heart", 0), ("cat", 1), (np.int64(1), 1)]:
        assert run.label(choice) == label
    for wrong in (True, 1.0, None, "Cat", "2", 2, -1, "-1", "\u0661", "9" * 5000, 10**5000, ["cat"], ""):
        with pytest.raises(LeanDiTError, match="give a number from 0 to 1 or one of heart, cat"):
            run.label(wrong)
    confused = replace(run, class_names=("1", "cat"))
    assert (confused.label(0), confused.label(1), confused.label("cat"), confused.label("0")) == (0, 1, 1, 0)
    with pytest.raises(LeanDiTError, match="'1': the name of class 0, and the number of class 'cat'"):
        confused.label("1")
