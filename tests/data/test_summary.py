"""What was read is said, and what was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from leandit.data import ClassFolderConfig, EmojiConfig, MetadataFolderConfig, ScenesConfig, build_source, summary
from leandit.errors import LeanDiTError


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


def test_files_that_are_passed_over_are_counted_by_suffix(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/b.jpg", "dog/c.png"):
        put(tmp_path / name)
    for name in ("cat/a.HEIC", "cat/b.heic", "dog/notes.txt", "README", ".hidden"):
        (tmp_path / name).write_text("x")
    line = summary(build_source(ClassFolderConfig(path=str(tmp_path))), "data.source")
    assert line == (
        "data.source: 3 pictures in 2 classes, no captions; "
        "passed over: 4 files that are no pictures (.heic: 2, .txt: 1, no suffix: 1)"
    )


def test_pictures_without_a_line_are_counted(tmp_path: Path) -> None:
    for name in ("a.png", "deep/b.png", "c.png"):
        put(tmp_path / name)
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "deep/b.png", "text": "x"}))
    line = summary(build_source(MetadataFolderConfig(path=str(tmp_path))), "data.source")
    assert line == (
        "data.source: 1 picture, no classes, with captions; passed over: 1 file that are no pictures (.json: 1); "
        "passed over: 2 pictures without a line in the metadata"
    )


def test_sources_without_files_say_what_they_are() -> None:
    assert summary(build_source(ScenesConfig(length=5)), "x") == "x: 5 pictures, no classes, with captions"
    hearts = build_source(EmojiConfig(classes={"heart": ("heart",)}, split="all"))
    assert summary(hearts, "x") == f"x: {len(hearts)} pictures in 1 class, with captions"


@pytest.mark.parametrize("suffix", ["avif", "jfif", "jpe", "webp", "tif"])
def test_every_format_is_found_and_read(tmp_path: Path, suffix: str) -> None:
    kind = {"jfif": "JPEG", "jpe": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    Image.new("RGB", (8, 6), (250, 10, 10)).save(tmp_path / f"a.{suffix}", format=kind)
    example = build_source(ClassFolderConfig(path=str(tmp_path)))[0]
    assert example.image.shape == (6, 8, 3)
    assert abs(example.image.astype(int) - [250, 10, 10]).max() < 12


@pytest.mark.parametrize("held_out", ["val", "validation", "valid", "test"])
def test_a_split_folder_is_recognised(tmp_path: Path, held_out: str) -> None:
    put(tmp_path / "train/cat/a.png")
    put(tmp_path / "train/dog/b.png")
    put(tmp_path / held_out / "cat/c.png")
    config = ClassFolderConfig(path=str(tmp_path))
    training, validation = build_source(config), build_source(config, "data.validation")
    assert (training.class_names, len(training)) == (("cat", "dog"), 2)
    assert (validation.class_names, validation[0].key) == (("cat",), "cat/c.png")
    with pytest.raises(LeanDiTError, match=f"is split into {held_out}, train|is split into train, {held_out}"):
        build_source(config, "--reference")


def test_validation_is_preferred_to_test_and_a_missing_part_is_an_error(tmp_path: Path) -> None:
    for part in ("train", "test"):
        put(tmp_path / part / f"{part}.png")
    config = ClassFolderConfig(path=str(tmp_path))
    assert build_source(config, "data.validation")[0].key == "test.png"
    put(tmp_path / "val/val.png")
    assert build_source(config, "data.validation")[0].key == "val.png"


@pytest.mark.parametrize("names", [("train",), ("train", "car"), ("val", "test"), ("train", "val", "other")])
def test_other_folders_are_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        put(tmp_path / name / "a.png")
    assert build_source(ClassFolderConfig(path=str(tmp_path))).class_names == tuple(sorted(names))
