"""A fingerprint tells other pictures, another order and other labels, and passes over mended files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leandit.data import ClassFolderConfig, EmojiConfig, IdxConfig, MetadataFolderConfig, build_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def test_class_folder(folder: Path) -> None:
    def now() -> str:
        return build_source(ClassFolderConfig(path=str(folder))).fingerprint

    before = now()
    Image.new("RGB", (99, 9), "red").save(folder / "b/2.png")
    assert now() == before
    (folder / "b/2.png").rename(folder / "b/3.png")
    assert now() != before


def test_metadata_folder(folder: Path) -> None:
    def of(*lines: tuple[str, str, int]) -> str:
        records = [{"file_name": name, "text": text, "label": label} for name, text, label in lines]
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))
        return build_source(MetadataFolderConfig(path=str(folder))).fingerprint

    one, two = ("a/1.png", "first", 0), ("b/2.png", "second", 1)
    before = of(one, two)
    assert of(one, two) == before
    assert before not in (of(two, one), of(one, (*two[:2], 0)), of(one, ("b/2.png", "2nd", 1)))


def test_idx(tmp_path: Path) -> None:
    def of(pictures: np.ndarray, labels: list[int]) -> str:
        (tmp_path / "i").write_bytes(bytes([0, 0, 8, 3, *(b for n in pictures.shape for b in (0, 0, 0, n))]))
        with (tmp_path / "i").open("ab") as file:
            file.write(pictures.tobytes())
        (tmp_path / "l").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, len(labels), *labels]))
        return build_source(IdxConfig(images=str(tmp_path / "i"), labels=str(tmp_path / "l"))).fingerprint

    pictures = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    before = of(pictures, [0, 1])
    assert of(pictures, [0, 1]) == before
    assert before not in (of(pictures[::-1], [0, 1]), of(pictures, [1, 0]))


def test_emoji() -> None:
    def of(**settings: object) -> str:
        return build_source(EmojiConfig.model_validate(settings)).fingerprint

    assert of() == of()
    assert len({of(), of(styles=["noto"]), of(split="held_out"), of(exclude_names=["cat"])}) == 4
