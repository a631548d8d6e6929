"""Folders of pictures, good and bad."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from leandit.data import ClassFolderConfig, build_source
from leandit.errors import LeanDiTError


def put(path: Path, grey: int = 0, size: tuple[int, int] = (4, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(path)
    return path


def message(path: Path, **options: int) -> str:
    with pytest.raises(LeanDiTError) as caught:
        read_all(ClassFolderConfig(path=str(path), **options))
    return str(caught.value)


def read_all(config: ClassFolderConfig) -> None:
    source = build_source(config)
    for i in range(len(source)):
        source[i]


def test_sub_folders_are_classes_by_name(tmp_path: Path) -> None:
    put(tmp_path / "dog/b.png", 1)
    put(tmp_path / "cat/deep/a.PNG", 2)
    put(tmp_path / "cat/z.jpg", 3)
    (tmp_path / "cat/notes.txt").write_text("passed over")
    (tmp_path / ".cache").mkdir()
    source = build_source(ClassFolderConfig(path=str(tmp_path)))
    assert source.class_names == ("cat", "dog")
    found = [(source[i].key, source[i].label, int(source[i].image[0, 0, 0])) for i in range(len(source))]
    assert found == [("cat/deep/a.PNG", 0, 2), ("cat/z.jpg", 0, 3), ("dog/b.png", 1, 1)]


def test_pictures_alone_have_no_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "set/b.png")
    put(tmp_path / "set/a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("set", "~/set"):
        source = build_source(ClassFolderConfig(path=path))
        assert [(source[i].key, source[i].label) for i in range(2)] == [("a.png", None), ("b.png", None)]
        assert source.class_names == ()


def test_folder_mistakes(tmp_path: Path) -> None:
    assert "no such folder" in message(tmp_path / "none")
    assert "a file, not a folder" in message(put(tmp_path / "one/a.png"))
    (tmp_path / "empty").mkdir()
    assert "no pictures here" in message(tmp_path / "empty")
    put(tmp_path / "mixed/cat/a.png")
    put(tmp_path / "mixed/b.png")
    assert "in class folders (cat) and outside of them (b.png)" in message(tmp_path / "mixed")
    put(tmp_path / "holes/cat/a.png")
    (tmp_path / "holes/dog").mkdir()
    assert "holes/dog: class folder without pictures" in message(tmp_path / "holes")


def test_links(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside.png")
    inside = put(tmp_path / "set/a.png")
    link = tmp_path / "set/b.png"
    link.symlink_to(inside)
    assert len(build_source(ClassFolderConfig(path=str(tmp_path / "set")))) == 2
    for target, expected in [(outside, "a link to a file outside"), (tmp_path / "gone.png", "does not exist")]:
        link.unlink()
        link.symlink_to(target)
        assert expected in message(tmp_path / "set")
    link.unlink()
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    assert "links to folders are not followed" in message(tmp_path / "set")


def test_bad_pictures_are_named(tmp_path: Path) -> None:
    put(tmp_path / "a.png", size=(40, 40))
    assert "a.png: 40 x 40 pixels are more than max_pixels=1000" in message(tmp_path, max_pixels=1000)
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    assert "b.png" in message(tmp_path)
    (tmp_path / "b.png").write_bytes(b"")
    assert "b.png: empty file" in message(tmp_path)
