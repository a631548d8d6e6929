"""Paths that no file system takes are mistakes in the configuration, not crashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from leandit.data import ClassFolderConfig, IdxConfig, MetadataFolderConfig, SourceConfig, build_source
from leandit.data.paths import user_path
from leandit.errors import LeanDiTError


@pytest.mark.parametrize("path", ["~nosuchuser/pics", "pics\0more", "p" * 5000], ids=["user", "null", "long"])
@pytest.mark.parametrize("kind", ["class_folder", "metadata_folder", "images", "labels"])
def test_every_reader_refuses_a_path_that_cannot_be(kind: str, path: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 7]))
    configs: dict[str, SourceConfig] = {
        "class_folder": ClassFolderConfig(path=path),
        "metadata_folder": MetadataFolderConfig(path=path),
        "images": IdxConfig(images=path),
        "labels": IdxConfig(images=str(images), labels=path),
    }
    with pytest.raises(LeanDiTError) as caught:
        build_source(configs[kind])
    message = str(caught.value)
    assert f"data.source.{'path' if 'folder' in kind else kind}" in message
    assert len(message) < 300
    assert "\0" not in message


def test_the_home_directory_is_filled_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/pics", "data.source.path") == tmp_path / "pics"
    assert user_path("pics", "data.source.path") == Path("pics")
