"""Every command says its first word at once and another one every few seconds, on a terminal and into a file.

The clock is the processor time of the command, so that a busy machine does not decide the result.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

FIRST, BETWEEN = 1.0, 10.0  # seconds of processor time
_TICKS = os.sysconf("SC_CLK_TCK")

COMMANDS = {
    "train": ["train", "tiny", "--out", "out", "train.steps=3"],
    "dry run": ["train", "emoji-race-air", "--dry-run"],
    "resume": ["resume", "RUN", "train.steps=21"],
    "sample": ["sample", "RUN", "--out", "drawn", "--seeds", "0-1", "--steps", "4"],
    "probe": ["probe", "RUN", "--out", "report", "--seeds", "0", "--steps", "2", "--pictures", "8"],
    "evaluate": ["evaluate", "RUN", "kid", "--num-samples", "32", "--steps", "2", "--out", "measured"],
    "runs": ["runs", "RUN"],
    "presets": ["presets"],
    "config": ["config", "train.steps"],
    "help": ["--help"],
}


def silences(words: list[str], folder: Path, terminal: bool) -> list[float]:
    """Return the processor time before the first output, and between any two outputs up to the end."""
    reader, writer = pty.openpty() if terminal else os.pipe()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "TERM": "xterm"}
    command = [sys.executable, "-m", "leandit", *words]
    process = subprocess.Popen(command, stdout=writer, stderr=writer, cwd=folder, env=environment)
    os.close(writer)
    found, last = [], 0.0
    while True:
        ready, _, _ = select.select([reader], [], [], 120)
        assert ready, "no output for two minutes"
        try:
            text = os.read(reader, 4096)
        except OSError:  # the terminal is closed
            text = b""
        now = processor_time(process.pid)
        found.append(now - last)
        last = now
        if not text:
            break
    os.close(reader)
    assert process.wait(60) == 0
    return found


def processor_time(process: int) -> float:
    """Return the seconds that a process has computed; after its end, all of them are its parent's no longer."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@pytest.mark.parametrize("name", COMMANDS)
def test_into_a_file(name: str, tiny_run: Path, tmp_path: Path) -> None:
    check(COMMANDS[name], tiny_run, tmp_path, False)


@pytest.mark.parametrize("name", ["train", "sample"])
def test_on_a_terminal(name: str, tiny_run: Path, tmp_path: Path) -> None:
    check(COMMANDS[name], tiny_run, tmp_path, True)


def check(words: list[str], run: Path, folder: Path, terminal: bool) -> None:
    own = folder / "run"
    subprocess.run(["cp", "-r", str(run), str(own)], check=True)
    first, *others = silences([str(own) if word == "RUN" else word for word in words], folder, terminal)
    assert first <= FIRST
    assert max(others) <= BETWEEN


def test_a_silence_is_noticed(tmp_path: Path) -> None:
    started = time.process_time()
    (tmp_path / "leandit.py").write_text(
        "import time\nwhile time.process_time() < 1.5: pass\nprint('x', flush=True)\n"
        "while time.process_time() < 2: pass\n"
    )
    first, *others = silences([], tmp_path, False)  # `python -m leandit` finds this file
    assert 1.4 <= first < 3
    assert 0.4 <= max(others) < 2
    assert time.process_time() - started < 1
