"""What goes wrong before there is a page is a message, not a traceback."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leandit.app import server as app_server
from leandit.cli import main


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: object) -> str:
        assert main(["serve", *map(str, arguments)]) == 2
        message = capsys.readouterr().err
        assert message.startswith("leandit: ")
        assert "Traceback" not in message
        return message

    return run


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_in_use(fails: Callable[..., str], tiny_run: Path, taken: int) -> None:
    assert f"--port {taken}: cannot listen here" in fails(tiny_run, "--port", taken)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--port", 70_000), "from 1 to 65535"),
        (("--port", -1), "from 1 to 65535"),
        (("--host", "no such host", "--port", 0), "not an address of this machine"),
        (("--host", "192.0.2.1", "--port", 0), "cannot listen here"),
        (("--queue", 0), "--queue 0"),
    ],
)
def test_options_out_of_range(
    fails: Callable[..., str], tiny_run: Path, options: tuple[object, ...], words: str
) -> None:
    assert words in fails(tiny_run, *options)


def test_a_folder_that_is_no_run(fails: Callable[..., str], tmp_path: Path) -> None:
    assert str(tmp_path / "nothing") in fails(tmp_path / "nothing", "--port", 0)
    assert str(tmp_path) in fails(tmp_path, "--port", 0)


def test_without_gradio(fails: Callable[..., str], tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_server, "find_spec", lambda name: None)
    assert 'pip install "leandit[serve]"' in fails(tiny_run)


def test_latents_are_no_pictures(fails: Callable[..., str], tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from leandit.run.config import DataConfig

    monkeypatch.setattr(DataConfig, "holds_latents", property(lambda self: True))
    assert "learned latents" in fails(tiny_run, "--port", 0)
