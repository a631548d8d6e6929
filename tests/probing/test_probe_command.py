"""`leandit probe`: what it writes and says, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from leandit.api import train
from leandit.cli import main
from leandit.presets import run_config
from tiny_encoders import text_model


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing takes ten times as long as sampling here; test_report.py draws them.
    for name in ("plot_routing", "plot_compute"):
        monkeypatch.setattr(f"leandit.probing.write.{name}", lambda *arguments: Path(arguments[-1]).touch())


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: object) -> str:
        assert main(["probe", *(str(argument) for argument in arguments)]) == 2
        message = capsys.readouterr().err
        assert message.startswith("leandit: ")
        assert "Traceback" not in message
        return message

    return run


def quick(*arguments: object) -> int:
    return main(["probe", *(str(argument) for argument in arguments), "--steps", "1", "--seeds", "0"])


def test_a_report_of_a_run(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quick(tiny_run, "--out", tmp_path / "out") == 0
    output = capsys.readouterr().out
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert f"{report['pairs']['total']:,} pairs" in output
    assert f"{tmp_path / 'out'}/report." in output
    assert [picture["name"] for picture in report["pictures"]] == ["heart", "cat"]
    assert report["run"]["steps"] == 1
    assert {"maps.png", "routing.png"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert quick(tiny_run, "--out", tmp_path / "part", "--by", "position, class", "--labels", "cat,cat") == 0
    report = json.loads((tmp_path / "part/report.json").read_text())
    assert {"position", "class"} <= set(report)
    assert not {"layer", "timestep", "caption"} & set(report)
    assert len(report["pictures"]) == 1


def test_training_leaves_a_report(tiny_run: Path) -> None:
    report = json.loads((tiny_run / "probe/report.json").read_text())
    assert report["pairs"]["total"] > 0
    assert report["run"]["step"] == 20
    assert len(report["pictures"]) == 3


def test_without_plotly_the_numbers_are_written(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("leandit.probing.write.can_write_page", lambda: False)
    assert quick(tiny_run, "--out", tmp_path) == 0
    assert not (tmp_path / "report.html").exists()
    assert {"report.json", "routing.png", "maps.png"} <= {path.name for path in tmp_path.iterdir()}
    assert "pip install 'leandit[report]'" in capsys.readouterr().out


def test_two_runs_side_by_side(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = tiny_run / "checkpoints/step-00000010"
    assert quick("--compare", tiny_run, checkpoint) == 0
    one, other = json.loads((tmp_path / "probe-run-step-00000010/report.json").read_text())["runs"]
    assert (one["run"]["step"], other["run"]["step"]) == (20, 10)
    assert one["pairs"] != other["pairs"]


def test_a_text_model(tmp_path: Path, folders: dict[str, Path], fails: Callable[..., str]) -> None:
    dense = text_model({"type": "sentence", "path": str(folders["sentence"]), "max_tokens": 12})
    moe = 'model.moe={"k": 2, "num_experts": 4}'
    prompts = 'sampling.prompts=["red apple", "green apple"]'
    run = tmp_path / "run"
    assert train(run_config("tiny", [*dense, moe, prompts, "train.steps=1"]), run) == 0
    report = json.loads((run / "probe/report.json").read_text())
    assert report["caption"]["words"]["names"] == ["apple", "red", "green"]
    assert quick(run, "--prompts", "tiger", "--out", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [picture["name"] for picture in report["pictures"]] == ["tiger"]
    assert "has no classes" in fails(run, "--labels", "1")
    assert "--by class" in fails(run, "--by", "class")
    assert "more than max_caption_chars" in fails(run, "--prompts", "a" * 10_001)


def test_mistakes(tiny_run: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "name a run" in fails()
    assert "not both" in fails(tiny_run, "--compare", tiny_run, tiny_run)
    assert "Did you mean 'timestep'?" in fails(tiny_run, "--by", "layer,timesteps")
    assert "--by caption needs a model that reads text" in fails(tiny_run, "--by", "caption")
    assert "the model reads no text" in fails(tiny_run, "--prompts", "red apple")
    out = ("--out", tmp_path / "made/probe")
    assert "label 'dog'" in fails(tiny_run, "--labels", "dog", *out)
    assert "at most 64" in fails(tiny_run, "--seeds", "0-99", *out)
    assert "the model reads no text" in fails("--compare", tiny_run, tiny_run, "--prompts", "red apple", *out)
    assert "steps" in fails(tiny_run, "--steps", "0", *out)
    assert not (tmp_path / "made").exists()  # mistakes leave no folder behind
    assert "--seeds 'x'" in fails(tiny_run, "--seeds", "x")
    assert "config.json" in fails(tmp_path)
    assert "the folder of a checkpoint" in fails(tiny_run, "--out", tiny_run / "checkpoints/step-00000020/probe")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in fails(tiny_run, "--out", tmp_path / "file")


def test_reports_are_never_mixed_or_overwritten(
    tiny_run: Path, tmp_path: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    trained = (run / "probe/report.json").read_bytes()
    assert json.loads((run / "probe/drawing.json").read_text())["probe"][0]["step"] == 20
    for seeds, folder in (("0", "probe-2"), ("1", "probe-3"), ("0", "probe-2")):
        assert main(["probe", str(run), "--steps", "1", "--seeds", seeds]) == 0
        assert f"{run / folder}/report." in capsys.readouterr().out
        assert json.loads((run / folder / "drawing.json").read_text())["probe"][0]["seeds"] == [int(seeds)] * 2
    assert (run / "probe/report.json").read_bytes() == trained
    message = fails(run, "--steps", "1", "--seeds", "5", "--out", run / "probe-2")
    assert "contains another drawing (other probe)" in message
