"""What a newcomer tries on the first day: each command, and what a person expects to read."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

import leandit
from leandit.cli import main

pytestmark = pytest.mark.usefixtures("no_figures")

QUICK = ("train.steps=2", "train.batch_size=4", "sampling.sampler.steps=1", "sampling.grid=2")


@dataclass(frozen=True)
class Task:
    """A command, its exit code, and what its output contains."""

    words: tuple[str, ...]
    expected: tuple[str, ...]
    code: int = 0


TASKS = {
    "what can it do": Task((), ("train", "sample", "compare", "draw pictures from a run")),
    "what can be trained": Task(("presets",), ("quickstart", "leandit train PRESET")),
    "which models are there": Task(("models",), ("RaceDiT-B/2-4in32", "EC-DiT-XL-8E")),
    "which settings are there": Task(("config",), ("optimizer", "model", "leandit config KEY")),
    "what is the learning rate called": Task(("config", "lr"), ("optimizer.lr",), 2),
    "what gates are there": Task(("config", "model.moe.gate"), ('"softmax" | "sigmoid" | "identity"', "on resume")),
    "a file to start from": Task(("config", "show", "tiny"), ("[model]", "# ")),
    "what would it cost": Task(("train", "tiny", "--dry-run"), ("parameters", "FLOPs", "memory", "step")),
    "a wrong key": Task(("train", "tiny", "lr=0.1"), ("lr: unknown key", "optimizer.lr"), 2),
    "an optimiser that is not here": Task(("train", "tiny", "optimizer.type=lion"), ("not one of", "adamw"), 2),
    "two mistakes at once": Task(
        ("train", "tiny", "train.stepps=3", "model.dpeth=3"), ("Did you mean 'steps'", "Did you mean 'depth'"), 2
    ),
    "an option of another program": Task(("train", "tiny", "--steps", "3"), ("key=value", "leandit config steps"), 2),
    "a preset that is not here": Task(("train", "quikstart"), ("Did you mean 'quickstart'",), 2),
    "a YAML file": Task(("train", "mine.yaml", *QUICK, "--out", "from-yaml"), ("Done: from-yaml",)),
    "class folders": Task(
        (
            *(
                "train",
                "tiny",
                "data.source.type=class_folder",
                "data.source.path=photos",
                *QUICK,
                "--out",
                "photos-run",
            ),
            "codec=null",
        ),
        ("2 classes", "Done: photos-run"),
    ),
    "captions in another column": Task(
        (
            *("train", "emoji-race-air", "data.source.type=metadata_folder", "data.source.path=captioned"),
            *("data.validation=null", "--dry-run"),
        ),
        ("caption", "text_key"),
        2,
    ),
    "go on with a run": Task(("resume", "RUN", "train.steps=21"), ("Resuming", "Done:")),
    "resume with another rate": Task(("resume", "RUN", "optimizer.lr=0.5"), ("optimizer.lr", "start.path"), 2),
    "list my runs": Task(("runs", "."), ("finished", "20/20")),
    "compare two runs": Task(("compare", "RUN", "other", "--out", "side"), ("optimizer.lr", "side/comparison.html")),
    "draw a class": Task(("sample", "RUN", "--labels", "heart", "--seeds", "0", "--steps", "1"), ("1 picture ",)),
    "draw a class that is not there": Task(("sample", "RUN", "--labels", "hart"), ("Did you mean 'heart'",), 2),
    "draw a prompt from a class model": Task(
        ("sample", "RUN", "--prompts", "a heart"), ("choose classes with labels",), 2
    ),
    "where did the experts go": Task(
        ("probe", "RUN", "--seeds", "0", "--steps", "1", "--pictures", "8"), ("report.html",)
    ),
    "a metric that is not here": Task(("evaluate", "RUN", "fidd"), ("Did you mean 'fid'", "kid"), 2),
    "a GPU that is not here": Task(("sample", "RUN", "--device", "cuda:7"), ("cuda",), 2),
    "a kernel that this machine has not": Task(
        ("train", "tiny", "model.moe.impl=triton", "--out", "no"), ("triton",), 2
    ),
    "a folder that is no run": Task(("sample", "photos"), ("photos",), 2),
    "a kind of my own, without its file": Task(("train", "tiny", "task.type=zzz"), ("--import FILE",), 2),
    "words in my shell": Task(("completion", "bash"), ("complete",)),
}


@pytest.fixture
def home(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what a newcomer has: pictures, captions, a file of settings, and two runs."""
    for name, colour in (("cat/1", "red"), ("cat/2", "blue"), ("dog/1", "green"), ("dog/2", "white")):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), colour).save(path)
    shutil.copytree(tmp_path / "photos/cat", tmp_path / "captioned")
    lines = [{"file_name": f"{number}.png", "caption": "a cat"} for number in (1, 2)]
    (tmp_path / "captioned/metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "mine.yaml").write_text("preset: tiny\noptimizer:\n  lr: 0.002\n")
    for name in ("first", "other"):
        shutil.copytree(tiny_run, tmp_path / name)
    config = json.loads((tmp_path / "other/config.json").read_text())
    config["optimizer"]["lr"] = 0.002
    (tmp_path / "other/config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", TASKS)
def test_a_task(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = TASKS[name]
    before = {path.name for path in home.iterdir()}
    try:
        code = main(["first" if word == "RUN" else word for word in task.words])
    except SystemExit as end:  # argparse ends so
        code = int(end.code or 0)
    output = "".join(capsys.readouterr())
    assert code == task.code, output
    assert [part for part in task.expected if part not in output] == [], output
    assert "Traceback" not in output
    assert "pydantic" not in output
    if task.code:  # a start that fails leaves nothing
        assert {path.name for path in home.iterdir()} == before


def test_from_python(home: Path) -> None:
    assert "RaceDiT-B/2-4in32" in leandit.list_models("race*")
    (picture,) = leandit.sample("first", "heart", [0], steps=1, output="pil")
    assert picture.size == (32, 32)
    assert [run.path.name for run in leandit.list_runs(["."])] != []
