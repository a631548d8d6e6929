"""A tiny run to draw from, and servers in processes of their own, as `leandit serve` starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# Found, not imported, which takes as long as torch: a process that runs no test of the page does without.
if not find_spec("gradio"):
    pytest.skip("gradio is not installed", allow_module_level=True)

from page_server import Server

from leandit.app.runs import ServedRun, open_runs
from leandit.presets import run_config
from leandit.training import run_training
from tiny_encoders import text_model


@pytest.fixture(scope="session")
def served(tiny_run: Path) -> dict[str, ServedRun]:
    """The tiny run, opened as the server does."""
    return open_runs([tiny_run])


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start `leandit serve`, or a program like it, on a free port; all servers end with the session."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, program: tuple[str, ...] = ("-m", "leandit")) -> Server:
        command = [sys.executable, *program, "serve", *map(str, arguments), "--port", "0"]
        folder = tmp_path_factory.mktemp("server")
        with (folder / "errors").open("w") as errors:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
            process = subprocess.Popen(command, **pipes, text=True, env=environment, cwd=folder)
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://" in line, (folder / "errors").read_text()
        return Server(process, line.split(" on ")[1].strip())

    yield start
    for process in started:
        process.kill()  # how it ends by itself is a test of its own
        process.wait()


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> Path:
    """A run of a dense model that reads prompts, in a folder called words."""
    encoder = {"type": "sentence", "path": str(folders["sentence"]), "max_tokens": 12}
    short = ["train.steps=2", "train.checkpoint_every=2", 'sampling.prompts=["red apple", "<b>tiger</b> & emoji"]']
    out = tmp_path_factory.mktemp("text") / "words"
    assert run_training(run_config("tiny", [*text_model(encoder), *short]), out) == 0
    return out


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Server], tiny_run: Path, text_run: Path) -> Server:
    """A server of two runs, shared by the tests that leave it running; few requests may wait, so that it fills."""
    return start_server(tiny_run, text_run, "--queue", 16)


@pytest.fixture(scope="session")
def stepwise_server(start_server: Callable[..., Server], tiny_run: Path, text_run: Path) -> Server:
    """A server of the same runs, of which tests say how far a drawing gets: see Server.evaluate."""
    return start_server(tiny_run, text_run, program=(str(Path(__file__).parent / "stepwise_server.py"),))
