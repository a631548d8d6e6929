"""The cache: what was computed is read, checked on use, and never taken for another encoder's."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from leandit.errors import LeanDiTError
from leandit.text import CachedEncoder, ClipEncoderConfig, DiskCache, TextRow, TransformerEncoder


class Letters:
    """An encoder that counts what it is asked: a token per letter, and one before them."""

    text_dim = 2
    pooled_dim = 3

    def __init__(self, fingerprint: str = "one", scale: float = 1.0) -> None:
        self.fingerprint = fingerprint
        self.asked: list[str] = []
        self._scale = scale

    def rows(self, texts: Sequence[str]) -> list[TextRow]:
        self.asked += texts
        return [self.row(text) for text in texts]

    def row(self, text: str) -> TextRow:
        tokens = torch.tensor([[0.0, len(text)], *[[float(ord(letter)), 1.0] for letter in text]]) * self._scale
        return TextRow(tokens, torch.full((3,), float(len(text))))


def same(rows: list[TextRow], expected: list[TextRow]) -> bool:
    pairs = list(zip(rows, expected, strict=True))
    return all(torch.equal(a.tokens, b.tokens) and torch.equal(a.pooled, b.pooled) for a, b in pairs)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_each_text_is_encoded_once(tmp_path: Path) -> None:
    inner = Letters()
    cached = CachedEncoder(inner, tmp_path / "cache", 2**20)
    texts = ["abc", "", "é\u2028😀", "abc", ""]
    assert same(cached.rows(texts), [inner.row(text) for text in texts])
    cached.rows(["", "new", "abc"])
    assert inner.asked == ["abc", "", "é\u2028😀", "new"]
    again = Letters()
    assert same(
        CachedEncoder(again, tmp_path / "cache", 0).rows([*texts, "new"]), [inner.row(t) for t in [*texts, "new"]]
    )
    assert again.asked == []
    assert len(files(tmp_path)) == 4
    assert all(path.suffix == ".safetensors" for path in files(tmp_path))


def test_memory_is_bounded_and_the_least_recently_used_goes() -> None:
    inner = Letters()
    size = inner.row("a").num_bytes
    assert size == (2 * 2 + 3) * 4
    cached = CachedEncoder(inner, None, 2 * size)
    for text in "abacab":
        assert same(cached.rows([text]), [inner.row(text)])
    assert inner.asked == ["a", "b", "c", "b"]
    assert CachedEncoder(inner, None, 0).rows(["x", "x"])[1].pooled.tolist() == [1, 1, 1]


def test_another_encoder_is_a_miss(tmp_path: Path) -> None:
    CachedEncoder(Letters("one"), tmp_path, 0).rows(["abc"])
    other = Letters("two", scale=2.0)
    assert same(CachedEncoder(other, tmp_path, 0).rows(["abc"]), [other.row("abc")])
    assert other.asked == ["abc"]


@pytest.mark.parametrize("foreign", [("two", "abc", "another encoder or revision"), ("one", "xyz", "another text")])
def test_a_file_of_another_encoder_or_text_under_the_same_name_is_an_error(
    tmp_path: Path, foreign: tuple[str, str, str]
) -> None:
    fingerprint, text, problem = foreign
    disk, other = DiskCache(tmp_path, Letters("one")), DiskCache(tmp_path, Letters(fingerprint))
    other.put(text, Letters().row(text))
    disk.path("abc").parent.mkdir(exist_ok=True)
    shutil.move(other.path(text), disk.path("abc"))
    with pytest.raises(LeanDiTError, match=f"contains the features of {problem} under this name; delete the file"):
        disk.get("abc")


def damage_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(bytes(data))


def damage_shape(path: Path) -> None:
    tensors = load_file(path)
    tensors["pooled"] = torch.zeros(4)
    digest = hashlib.sha256(tensors["pooled"].numpy().tobytes() + tensors["tokens"].numpy().tobytes()).hexdigest()
    save_file(tensors, path, {"fingerprint": "one", "text": "abc", "sha256": digest})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-5]),
        lambda path: path.write_bytes(b""),
        damage_bytes,
        damage_shape,
    ],
    ids=["cut", "empty", "flipped bit", "other width"],
)
def test_a_damaged_file_is_computed_again_with_a_warning(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    inner = Letters()
    CachedEncoder(inner, tmp_path, 0).rows(["abc"])
    (path,) = files(tmp_path)
    damage(path)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert same(CachedEncoder(inner, tmp_path, 0).rows(["abc"]), [inner.row("abc")])
    assert inner.asked == ["abc", "abc"]
    assert f"{path}: damaged (" in caplog.text
    caplog.clear()
    CachedEncoder(inner, tmp_path, 0).rows(["abc"])
    assert (len(inner.asked), caplog.text) == (2, "")


def test_a_folder_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LeanDiTError, match=r"cannot be stored here: .*\nFree disk space, choose another folder"):
            CachedEncoder(Letters(), folder, 0)
    cached = CachedEncoder(Letters(), tmp_path / "cache", 0)

    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(LeanDiTError, match="No space left on device"):
        cached.rows(["abc"])
    assert files(tmp_path / "cache") == []


def test_the_fingerprint_follows_what_decides_the_features(folders: dict[str, Path], tmp_path: Path) -> None:
    def fingerprint(folder: Path, **options: object) -> str:
        return TransformerEncoder(ClipEncoderConfig(path=str(folder), **{"max_tokens": 12, **options})).fingerprint

    clip = folders["clip"]
    copy = Path(shutil.copytree(clip, tmp_path / "copy"))
    first = fingerprint(clip)
    assert fingerprint(copy) == first
    # Where fine-tuning starts: checkpoints keep this value, so it must not move with new fields of the config.
    assert fingerprint(clip, finetune=True) == first
    changed = [{"layers": (-2,)}, {"pooled": "mean"}, {"bidirectional": True}, {"max_tokens": 8}, {"revision": "v2"}]
    prints = {fingerprint(clip, **options) for options in changed}
    weights = load_file(copy / "model.safetensors")
    name = next(iter(weights))
    weights[name].view(-1)[0] += 1
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    prints |= {fingerprint(copy)}
    assert len(prints - {first}) == 6
    tokenizer = Path(shutil.copytree(clip, tmp_path / "tokenizer"))
    text = (tokenizer / "tokenizer.json").read_text()
    (tokenizer / "tokenizer.json").write_text(text.replace('"red": 4', '"green": 4').replace('"green": 5', '"red": 5'))
    assert fingerprint(tokenizer) not in prints | {first}
