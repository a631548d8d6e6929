"""What a shell is offered after a beginning of a command line, asked as the shell's own function asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from leandit.cli import main
from leandit.config.fields import walk
from leandit.presets import PRESETS
from leandit.run import RunConfig


def offered(line: str, folder: Path) -> list[str]:
    """Return what is offered at the end of the line."""
    answer = folder / "answer"
    asked = {
        **{"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"},
        **{"_ARGCOMPLETE_SUPPRESS_SPACE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)},
    }
    code = "from leandit.cli import main; main()"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, cwd=folder, check=True, timeout=60)
    words = answer.read_text().split("\n")
    answer.unlink()
    return [word.strip() for word in words if word.strip()]


def test_commands_options_presets_settings_and_runs(tmp_path: Path) -> None:
    assert {"train", "resume", "compare", "completion"} <= set(offered("leandit ", tmp_path))
    assert offered("leandit sample x --gui", tmp_path) == ["--guidance"]
    (tmp_path / "mine.toml").touch()
    assert set(offered("leandit train ", tmp_path)) >= {*PRESETS, "mine.toml"}
    settings = offered("leandit train tiny train.", tmp_path)
    fields = {field.key for field in walk(RunConfig) if field.key.startswith("train.")}
    assert {word.rstrip("=.") for word in settings} == fields
    assert "train.steps=" in settings
    assert "data." in offered("leandit train tiny da", tmp_path)
    assert offered("leandit train tiny model.moe.gate=s", tmp_path) == [
        "model.moe.gate=softmax",
        "model.moe.gate=sigmoid",
    ]
    (tmp_path / "runs/first").mkdir(parents=True)
    (tmp_path / "runs/first/config.json").touch()
    assert set(offered("leandit sample ", tmp_path)) >= {"emoji", "runs/"}
    assert offered("leandit sample runs/", tmp_path) == ["runs/first"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_lines_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "leandit" in text
    assert {"bash": "complete -o", "zsh": "compdef", "fish": "complete --command leandit"}[shell] in text


def test_bash_accepts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "lines.sh"
    script.write_text(capsys.readouterr().out + "\ncomplete -p leandit\n")
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "leandit" in done.stdout
