"""A reader of stdout that goes away costs no step, and resuming finds the run that is meant."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leandit.cli import main
from leandit.cli.progress import TrainingProgress
from leandit.run.checkpoint import list_steps

# Two models are a list, and all of them take ten seconds to count.
FEW_MODELS = """
import sys
from leandit.cli import main, models
models.MODELS = dict(list(models.MODELS.items())[:2])
sys.exit(main())
"""
COMMAND = [sys.executable, "-c", "import sys; from leandit.cli import main; sys.exit(main())"]
WARN = """
import sys
from leandit.cli.output import say
from leandit.cli.progress import TrainingProgress
sys.stdin.read()
progress = TrainingProgress()
progress.on_warning(None, "first")
progress.on_warning(None, "second")
say("third")
print("alive", file=sys.stderr)
"""


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=0
    )


def close_stdout(process: subprocess.Popen[str]) -> str:
    """Close the reading end, then end the program's stdin, and return its stderr once it has ended."""
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    process.stdin.close()
    errors = process.stderr.read()
    process.wait(timeout=60)
    process.stderr.close()
    return errors


def test_training_goes_on_when_nobody_reads_its_lines(tmp_path: Path) -> None:
    process = start(*COMMAND, "train", "tiny", "train.checkpoint_every=1000", "--out", str(tmp_path / "run"))
    assert process.stdout
    assert process.stdout.readline().startswith("Training tiny in")
    assert close_stdout(process) == "Loading ...\n"
    assert process.returncode == 0
    assert list_steps(tmp_path / "run" / "checkpoints") == [20]
    assert (tmp_path / "run" / "compute.png").exists()


def test_warnings_that_nobody_reads_end_nothing() -> None:
    process = start(sys.executable, "-c", WARN)
    assert close_stdout(process) == "alive\n"
    assert process.returncode == 0


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_list_read_in_part_is_a_success(options: list[str]) -> None:
    process = start(sys.executable, "-c", FEW_MODELS, "models", *options)
    assert close_stdout(process) == ""
    assert process.returncode == 0


def test_a_signal_while_the_last_pictures_are_drawn_leaves_a_complete_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: TrainingProgress, trainer: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    command = ["train", "tiny", "train.steps=2", "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "on_finish", interrupted)
        assert main(command) == 130
    again = shlex.join(["leandit", *command, "--resume"])
    assert f"the run is complete, only pictures are missing; draw them with: {again}" in capsys.readouterr().out
    assert not (tmp_path / "run" / "samples.png").exists()
    assert main([*command, "--resume"]) == 0
    assert (tmp_path / "run" / "samples.png").exists()


def test_the_settings_of_a_run_are_repeated_by_its_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "my run"
    assert main(["train", "tiny", "train.steps=2", "optimizer.lr=0.003", "--out", str(run)]) == 0
    assert main(["train", "tiny", "train.steps=4", "--out", str(run), "--resume"]) == 2
    (advice,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  leandit")]
    words = shlex.split(advice)
    assert words == ["leandit", "resume", str(run)]
    assert main([*words[1:], "train.steps=4"]) == 0
    assert list_steps(run / "checkpoints") == [2, 4]


def test_without_out_the_last_run_that_is_left_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["train", "tiny", "train.steps=1"]) == 0
    for other in ("tiny-dense", "tiny-02", "tin"):
        (tmp_path / "runs" / other).mkdir()
    shutil.rmtree(tmp_path / "runs" / "tiny")
    assert main(["train", "tiny", "train.steps=2", "--resume"]) == 0
    assert list_steps(tmp_path / "runs" / "tiny-2" / "checkpoints") == [1, 2]
    assert main(["train", "tiny", "train.steps=1"]) == 0
    assert list_steps(tmp_path / "runs" / "tiny" / "checkpoints") == [1]
