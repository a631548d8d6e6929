"""Mistakes around text: prompts that are none, and encoders and caches that have gone or changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import leandit
from leandit.cli import main
from tiny_encoders import save_encoder, text_model

Fails = Callable[..., str]


@pytest.fixture(scope="module")
def clip_run(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> Path:
    """A run of one step with CLIP; to be read only."""
    out = tmp_path_factory.mktemp("clip") / "run"
    encoder = {"type": "clip", "path": str(folders["clip"]), "max_tokens": 12}
    assert main(["train", "tiny", "train.steps=1", *text_model(encoder), "--out", str(out)]) == 0
    return out


# Prompts


@pytest.mark.parametrize(
    ("prompts", "problem"),
    [
        ([""], "prompt 1 of 1: empty; describe the picture"),
        (["red apple", " \n"], "prompt 2 of 2: empty"),
        (["x" * 10_001], "prompt 1 of 1: 10001 characters, more than max_caption_chars=10000"),
        (["\udcff"], "prompt 1 of 1: '\\udcff' contains half a surrogate pair"),
    ],
    ids=["empty", "blank", "enormous", "no Unicode"],
)
def test_prompts_that_are_no_texts(
    fails: Fails, clip_run: Path, tmp_path: Path, prompts: list[str], problem: str
) -> None:
    assert problem in fails("sample", clip_run, "--out", tmp_path / "out", "--prompts", *prompts)
    with pytest.raises(leandit.LeanDiTError) as caught:
        leandit.sample(clip_run, prompts=prompts, seeds=[0])
    assert problem in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("prompts", "problem"),
    [
        ("red apple", "expected a list of texts, got one text ('red apple')"),
        ([3], "prompt 1 of 1: int is not a text"),
        (["red", None], "prompt 2 of 2: NoneType is not a text"),
        ([b"red"], "bytes is not a text"),
        ([], "there is nothing to draw"),
        (None, "conditioned on text; give prompts"),
    ],
)
def test_prompts_of_another_type(clip_run: Path, prompts: object, problem: str) -> None:
    with pytest.raises(leandit.LeanDiTError) as caught:
        leandit.sample(clip_run, prompts=prompts, seeds=[0])  # type: ignore[arg-type]
    assert problem in str(caught.value)


def test_labels_are_no_prompts(fails: Fails, clip_run: Path) -> None:
    assert "conditioned on text and has no classes; give prompts" in fails("sample", clip_run, "--labels", "0")
    with pytest.raises(leandit.LeanDiTError, match="was given labels; give it a text for each picture"):
        leandit.sampling.sample(leandit.load(clip_run), [0], [0])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"red apple\ntiger\xff\n", "prompts.txt, line 2: not UTF-8 text; save the file as UTF-8"),
        (b"", "there is no prompt in it; write one per line"),
        (b" \n\r\n", "there is no prompt in it"),
        (b"red apple\n" + b"x" * 10_001, "prompt 2 of 2: 10001 characters"),
        (b"x" * (16 * 1024**2 + 1), "more than 16 MiB"),
        (b"".join(b"%d\n" % n for n in range(40)), "40 labels or prompts with 30000 seeds each: more than a million"),
    ],
    ids=["no UTF-8", "no line", "blank lines", "enormous prompt", "enormous file", "too many pictures"],
)
def test_files_of_prompts(fails: Fails, clip_run: Path, tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    out = tmp_path / "out"
    assert problem in fails("sample", clip_run, "--prompts-file", path, "--seeds", "0-29999", "--out", out)
    assert not out.exists()


def test_paths_that_are_no_file_of_prompts(fails: Fails, clip_run: Path, tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in fails("sample", clip_run, "--prompts-file", tmp_path)
    assert "cannot be read: No such file" in fails("sample", clip_run, "--prompts-file", tmp_path / "none")
    assert "more than 16 MiB" in fails("sample", clip_run, "--prompts-file", "/dev/zero")
    with pytest.raises(SystemExit):
        main(["sample", str(clip_run), "--prompts", "red", "--prompts-file", str(tmp_path)])


def test_a_file_of_prompts_from_another_system_and_long_prompts_are_drawn(clip_run: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "prompts.txt", tmp_path / "out"
    path.write_bytes("\ufeffred apple\r\n\r\ntiger 🐯\r\n".encode() + b"red " * 2000)
    command = ["sample", str(clip_run), "--prompts-file", str(path), "--seeds", "0", "--steps", "1", "--npz"]
    assert main([*command, "--out", str(out)]) == 0
    with np.load(out / "samples.npz") as arrays:
        assert arrays["prompts"].tolist() == ["red apple", "tiger 🐯", ("red " * 2000).strip()]
    with Image.open(out / "grid.png") as grid:
        assert grid.width < 1000


def test_prompts_of_the_grids_are_checked_before_the_training(
    fails: Fails, folders: dict[str, Path], tmp_path: Path
) -> None:
    encoder = {"type": "clip", "path": str(folders["clip"]), "max_tokens": 12}
    command = ["train", "tiny", *text_model(encoder), "--out", tmp_path / "run"]
    assert "sampling.prompts[1]: empty" in fails(*command, 'sampling.prompts=["red", " "]')
    assert "sampling.prompts[0]: 3 characters" in fails(
        *command, 'sampling.prompts=["red"]', "text.max_caption_chars=2"
    )
    assert not (tmp_path / "run").exists()


# Encoders


def test_an_encoder_that_has_gone_or_is_another_one(fails: Fails, tmp_path: Path) -> None:
    folder, run = tmp_path / "encoder", tmp_path / "run"
    save_encoder(folder, "clip")
    encoder = {"type": "clip", "path": str(folder), "max_tokens": 12}
    train = ["train", "tiny", *text_model(encoder), "--out", str(run)]
    assert main([*train, "train.steps=1"]) == 0
    shutil.move(folder, tmp_path / "first")
    sample = ["sample", str(run), "--prompts", "red", "--seeds", "0", "--steps", "1", "--out", str(tmp_path / "out")]
    message = fails(*sample)
    assert f"{folder}: no such folder" in message
    assert "reads it from that path: put the encoder or a link to it there" in message
    assert f"{folder}: no such folder" in fails(*train, "train.steps=2", "--resume")
    for other in ({"seed": 1}, {"width": 24}):
        save_encoder(folder, "clip", **other)
        resume = [*train, "train.steps=2", "--resume"]
        recorded = ["train", run / "config.json", "train.steps=2", "--out", run, "--resume"]
        for command in (sample, resume, recorded):
            message = fails(*command)
            assert "the text encoder is not the one that the run was trained with: other weights, another" in message
            assert f"are under {folder} now" in message
            assert "Restore the old files" in message
        shutil.rmtree(folder)
    save_encoder(folder, "t5")
    assert "contains a 't5' model, not clip" in fails(*sample)
    assert not (tmp_path / "out").exists()
    shutil.rmtree(folder)
    # A link to the encoder, wherever it lies now, is the way out that the message names.
    folder.symlink_to(tmp_path / "first")
    assert main(sample) == 0
    assert main([*train, "train.steps=2", "--resume"]) == 0


def test_loading_a_run_leaves_its_cache_alone(tmp_path: Path, folders: dict[str, Path]) -> None:
    encoder = {"type": "clip", "path": str(folders["clip"]), "max_tokens": 12}
    cache, run = tmp_path / "cache", tmp_path / "run"
    assert main(["train", "tiny", "train.steps=1", *text_model(encoder), f"text.cache={cache}", "--out", str(run)]) == 0
    assert any(cache.rglob("*.safetensors"))
    shutil.rmtree(cache)
    cache.write_text("no folder")
    assert len(leandit.sample(run, prompts=["red"], seeds=[0], steps=1)) == 1
    assert cache.read_text() == "no folder"


def test_a_cache_of_another_encoder_or_revision_is_not_read(
    fails: Fails, tmp_path: Path, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each finds its own features in the folder; a file that claims to be another's is refused."""
    cache = tmp_path / "cache"
    encoders = [{"type": "clip", "path": str(folders["clip"]), "max_tokens": 12, "revision": r} for r in ("a", "b")]
    encoders += [{"type": "sentence", "path": str(folders["sentence"]), "max_tokens": 12}]
    files: list[set[Path]] = []
    for number, encoder in enumerate(encoders):
        train = ["train", "tiny", "train.steps=1", *text_model(encoder), f"text.cache={cache}"]
        assert main([*train, "--out", str(tmp_path / f"shared-{number}")]) == 0
        assert main([*train[:-1], "--out", str(tmp_path / f"alone-{number}")]) == 0
        files.append(set(cache.rglob("*.safetensors")).difference(*files))
        losses = [(tmp_path / f"{kind}-{number}" / "metrics.jsonl").read_text() for kind in ("shared", "alone")]
        assert len({json.loads(line.splitlines()[0])["loss"] for line in losses}) == 1
    assert len({len(own) for own in files}) == 1
    capsys.readouterr()
    for one, other in zip(sorted(files[0]), sorted(files[1]), strict=True):
        shutil.copy(one, other)
    train = ["train", "tiny", "train.steps=1", *text_model(encoders[1]), f"text.cache={cache}"]
    message = fails(*train, "--out", tmp_path / "again")
    assert "under this name; delete the file, or the whole cache folder" in message
