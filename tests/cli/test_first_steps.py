"""What a new user types first: help, version, lists, a key, a run that goes on, a setting that is no option."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import leandit
from leandit.cli import main
from leandit.cli.parser import build_parser
from leandit.presets import PRESETS
from leandit.run.checkpoint import list_steps

COMMANDS = ("train", "resume", "sample", "evaluate", "probe", "serve", "runs", "presets", "models", "config")


def test_leandit_alone_lists_the_commands_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        [line] = [line for line in text.splitlines() if line.startswith(f"    {command} ")]
        assert len(line.split()) >= 3


def test_help_and_version_end_well_and_import_no_torch() -> None:
    code = (
        "import sys\nfrom leandit.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    assert end.code == 0\nassert 'torch' not in sys.modules\nassert 'rich' not in sys.modules"
    )
    for words in (["--version"], ["--help"], [], ["sample", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert ("usage: leandit" in done.stdout) is (words != ["--version"])
        assert done.stderr == ""
    assert build_parser().prog == "leandit"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"leandit {leandit.__version__}\n"


def test_presets_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["preset"] for row in rows] == list(PRESETS)
    assert all(len(row["what it is"]) > 20 and row["steps"] > 0 for row in rows)
    assert main(["presets"]) == 0
    assert "2 of 8 experts" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["config", "train.steps"], ["config", "doc", "train.steps"]])
def test_config_explains_a_key(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("train.steps\n")


def test_config_alone_lists_the_tables_and_finds_keys_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{text}" for name in ("model", "data", "train", "optimizer"))
    assert main(["config", "lr"]) == 2
    assert "'optimizer.lr'" in capsys.readouterr().err


def test_an_option_that_is_a_setting_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "tiny", "--batch-size", "3"])
    assert "settings are written as key=value, and `leandit config batch_size` finds" in capsys.readouterr().err
    assert main(["config", "batch_size"]) == 2
    assert "train.batch_size" in capsys.readouterr().err


def test_quiet_before_and_after_the_command(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = ["sample", str(tiny_run), "--seeds", "0", "--steps", "1", "--labels", "cat"]
    for number, words in enumerate((["-q", *draw], [*draw, "--quiet"], draw)):
        assert main([*words, "--out", str(tmp_path / str(number))]) == 0
        assert "1 picture and grid.png" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["-q", "sample", str(tiny_run), "-v", "-q"])
    train = ["train", "tiny", "train.steps=1", "--out", str(tmp_path / "run"), "-q"]
    assert main(train) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == ["", f"Done: {tmp_path / 'run'}"]
    assert err.endswith("\n") is (err != "")


def test_verbose_names_what_is_chosen(tiny_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert main(["sample", str(tiny_run), "--seeds", "0", "--steps", "1", "-v", "--out", str(tmp_path / "o")]) == 0


def test_a_run_goes_on_by_its_folder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "my run"
    assert main(["train", "tiny", "train.steps=1", "--out", str(run)]) == 0
    assert main(["resume", str(run), "train.steps=2"]) == 0
    assert f"Resuming tiny in {run}" in capsys.readouterr().out
    assert list_steps(run / "checkpoints") == [1, 2]
    # Its config.json stands for it as well: the run itself goes on, not another one of its name.
    assert main(["train", str(run / "config.json"), "train.steps=3", "--resume"]) == 0
    assert list_steps(run / "checkpoints")[-1] == 3
    capsys.readouterr()
    assert main(["resume", str(run), "model.dim=64"]) == 2
    assert "model.dim" in capsys.readouterr().err
    assert main(["resume", str(tmp_path)]) == 2
    assert "not a run of LeanDiT" in capsys.readouterr().err
    assert main(["train", str(run)]) == 2
    assert f"is a run; continue it with `leandit resume {run}`" in capsys.readouterr().err


def test_models_by_a_pattern() -> None:
    assert leandit.list_models("race*b/2*") == [
        name for name in leandit.list_models() if name.startswith("RaceDiT-B/2")
    ]
    assert len(leandit.list_models()) > 80
    assert leandit.list_models("none") == []


def test_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("preset: tiny\ntrain:\n  steps: 1\noptimizer:\n  lr: 1e-3\n")
    assert main(["config", "show", "--json", str(tmp_path / "mine.yaml")]) == 0
    config = json.loads(capsys.readouterr().out)
    assert (config["train"]["steps"], config["optimizer"]["lr"]) == (1, 1e-3)


@pytest.mark.parametrize("command", ["sample", "evaluate", "probe", "serve"])
def test_a_device_that_is_not_there_is_named(command: str, tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tiny_run), "--device", "tpu"]) == 2
    assert "device 'tpu': choose auto, cpu, cuda" in capsys.readouterr().err
    assert main([command, str(tiny_run), "--precision", "fp8"]) == 2
    assert "precision 'fp8'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["config", "-q"], ["-q", "config"], ["-q", "config", "train.steps"], ["config", "train.steps", "-v"]]
)
def test_config_with_options_anywhere(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert ("type       integer" in capsys.readouterr().out) is ("train.steps" in words)


def test_what_cannot_be_resumed_is_refused_and_left_alone(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    checkpoint = run / "checkpoints/step-00000020"
    before = sorted(path.name for path in checkpoint.iterdir())
    assert main(["resume", str(checkpoint)]) == 2
    assert "this is a checkpoint; give the folder of its run" in capsys.readouterr().err
    assert sorted(path.name for path in checkpoint.iterdir()) == before
    (tmp_path / "empty").mkdir()
    shutil.copy(run / "config.json", tmp_path / "empty")
    assert main(["resume", str(tmp_path / "empty")]) == 2
    assert "no checkpoint to resume from; start the run with" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["config.json"]
