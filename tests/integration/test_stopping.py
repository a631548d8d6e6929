"""Ctrl-C, SIGTERM, a second process, a full disk: real processes where signals are concerned."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from leandit.cli import main
from leandit.run import read_metrics, store
from leandit.run.checkpoint import find_newest

COMMAND = [sys.executable, "-c", "import sys; from leandit.cli import main; sys.exit(main())"]
ENDLESS = ["train", "tiny", "train.steps=100000", "train.log_every=1", "train.checkpoint_every=1000"]


def newest_step(run: Path) -> int:
    checkpoint = find_newest(run / "checkpoints")
    assert checkpoint is not None
    return checkpoint.step


def start_and_wait_for(run: Path, step: int, *options: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*COMMAND, *ENDLESS, "--out", str(run), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for _ in range(1200):
        metrics = run / "metrics.jsonl"
        if metrics.exists() and (records := read_metrics(metrics)) and records[-1]["step"] >= step:
            return process
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"no step {step} within a minute")


def test_signals_end_a_run_after_a_checkpoint_and_resume_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "my run"
    first = start_and_wait_for(run, 3)
    try:
        assert main([*ENDLESS, "--out", str(run), "--resume"]) == 2
        message = capsys.readouterr().err
        assert f"in use by process {first.pid} on" in message
        assert "Traceback" not in message
    finally:
        first.send_signal(signal.SIGINT)
        output = first.communicate(timeout=60)[0]
    assert first.returncode == 130, output
    assert "Traceback" not in output
    # The command is printed as one can paste it.
    command = " ".join(["leandit", *ENDLESS, "--out", f"'{run}'", "--resume"])
    assert f"Stopped after a checkpoint; continue with: {command}" in output
    stopped = newest_step(run)
    assert stopped >= 3
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == stopped

    second = start_and_wait_for(run, stopped + 2, "--resume")
    second.send_signal(signal.SIGTERM)
    output = second.communicate(timeout=60)[0]
    assert second.returncode == 143, output
    assert newest_step(run) >= stopped + 2
    steps = [record["step"] for record in read_metrics(run / "metrics.jsonl")]
    assert steps == list(range(1, newest_step(run) + 1))


def test_a_full_disk_leaves_the_earlier_checkpoint_and_a_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ["train", "tiny", "--out", str(run)]
    write = store.write_checkpoint

    def full(path: Path, step: int, *rest: Any) -> None:
        if step < 20:
            return write(path, step, *rest)
        path.mkdir()
        (path / "model.safetensors").write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path / "model.safetensors"))

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_checkpoint", full)
        assert main(command) == 2
    message = capsys.readouterr().err
    assert "the checkpoint of step 20 could not be written: model.safetensors: No space left on device" in message
    assert "newest: step 10" in message
    assert "Free some space" in message
    assert "Traceback" not in message
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000010"]
    assert main([*command, "--resume"]) == 0
    assert newest_step(run) == 20


def test_a_disk_too_full_for_pictures_costs_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from leandit import pictures

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "save_png", full)
        assert main(["train", "tiny", "train.sample_every=5", "--out", str(run)]) == 2
    captured = capsys.readouterr()
    assert "step 5: the grid of samples could not be written: No space left on device" in captured.out
    assert "pictures cannot be written: No space left on device" in captured.err
    assert newest_step(run) == 20
    assert main(["train", "tiny", "train.sample_every=5", "--out", str(run), "--resume"]) == 0
    assert {"samples.png", "loss.png", "compute.png"} <= {path.name for path in run.iterdir()}
