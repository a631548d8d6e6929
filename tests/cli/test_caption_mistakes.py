"""Captions that are no captions, in every kind of data, and shards that are dangerous to open."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from leandit.data import Loader
from tiny_encoders import text_model

Fails = Callable[..., str]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_metadata(root: Path, captions: list[object]) -> list[str]:
    for number in range(len(captions)):
        (root / f"{number}.png").write_bytes(png())
    lines = [json.dumps({"file_name": f"{n}.png", "text": caption}) for n, caption in enumerate(captions)]
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return ["data.source.type=metadata_folder", f"data.source.path={root}"]


def write_shard(root: Path, captions: list[object], *members: tarfile.TarInfo) -> list[str]:
    with tarfile.open(root / "a.tar", "w") as tar:
        for member in members:
            tar.addfile(member)
        for number, caption in enumerate(captions):
            for name, data in ((f"{number}.png", png()), (f"{number}.json", json.dumps({"text": caption}).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return ["data.source.type=webdataset", f'data.source.paths=["{root}/a.tar"]']


def write_parquet(root: Path, captions: list[object]) -> list[str]:
    parquet, table = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow").table
    # A column has one type, that of its last caption here.
    kind = type(captions[-1])
    texts = {str: captions, int: [3] * len(captions), list: [[c] if isinstance(c, str) else c for c in captions]}[kind]
    pictures = [{"bytes": png(), "path": None}] * len(captions)
    parquet.write_table(table({"image": pictures, "text": texts}), root / "a.parquet")
    return ["data.source.type=parquet", f'data.source.paths=["{root}/a.parquet"]']


WRITERS = {"metadata": write_metadata, "shard": write_shard, "parquet": write_parquet}
PLACES = {"metadata": "line 4", "shard": "a.tar/3.json", "parquet": "a.parquet[0:"}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("caption", "problem"),
    [("", "'text' is empty"), (" \t", "'text' is empty"), (3, "'text' is a number"), (["a", ""], "text[1] is empty")],
    ids=["empty", "blank", "number", "one of two empty"],
)
def test_captions_that_are_no_texts(
    fails: Fails, tmp_path: Path, folders: dict[str, Path], kind: str, caption: object, problem: str
) -> None:
    encoder = {"type": "clip", "path": str(folders["clip"]), "max_tokens": 12}
    source = WRITERS[kind](tmp_path, ["red", "green", "tiger", caption])
    message = fails("train", "tiny", "train.steps=9", *text_model(encoder), *source, "--out", tmp_path / "run")
    assert problem in message
    assert PLACES[kind] in message


@pytest.mark.parametrize("kind", WRITERS)
def test_an_enormous_caption_is_named_and_costs_no_finished_step(
    fails: Fails, tmp_path: Path, folders: dict[str, Path], kind: str
) -> None:
    encoder = {"type": "clip", "path": str(folders["clip"]), "max_tokens": 12}
    source = WRITERS[kind](tmp_path, ["red"] * 7 + ["x" * 10_001])
    options = ["train.steps=9", "train.log_every=1", "train.batch_size=1", *source]
    message = fails("train", "tiny", *text_model(encoder), *options, "--out", tmp_path / "run")
    name = {"metadata": "7.png", "shard": "a.tar/7", "parquet": "a.parquet[0:7]"}[kind]
    assert f"{name}: caption: 10001 characters, more than max_caption_chars=10000" in message
    assert "raise text.max_caption_chars" in message
    finished = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    saved = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert saved[-1].name == f"step-{finished[-1]:08d}"


def test_pictures_of_which_some_have_no_caption(
    fails: Fails, tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loader, "_texts", lambda *_: None)
    encoder = {"type": "clip", "path": str(folders["clip"]), "max_tokens": 12}
    message = fails("train", "tiny", *text_model(encoder), "--out", tmp_path / "run")
    assert "conditioned on captions, which these pictures do not all have: " in message


# Shards


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("x.pkl", tarfile.REGTYPE, "'x.pkl' is a pickle, which can run code when it is read"),
        ("x.png", tarfile.SYMTYPE, "'x.png' is a link"),
        ("x.png", tarfile.LNKTYPE, "'x.png' is a link"),
        ("../x.png", tarfile.REGTYPE, "'../x.png' is a name that points outside the archive"),
        ("/tmp/x.png", tarfile.REGTYPE, "'/tmp/x.png' is a name that points outside the archive"),
    ],
)
def test_dangerous_members_of_a_shard(
    fails: Fails, tmp_path: Path, folders: dict[str, Path], name: str, kind: bytes, problem: str
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/hostname"
    encoder = {"type": "clip", "path": str(folders["clip"]), "max_tokens": 12}
    source = write_shard(tmp_path, ["red", "green"], member)
    message = fails("train", "tiny", *text_model(encoder), *source, "--out", tmp_path / "run")
    assert f"{tmp_path}/a.tar: member {problem}" in message
    assert "create the shard again without it" in message
    assert not (tmp_path / "run").exists()
