"""What tests of mistakes on the command line have in common."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from leandit.cli import main


@pytest.fixture(autouse=True)
def _fast(no_figures: None) -> None:
    """Runs of these tests leave blank figures."""


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail, and return its message."""

    def run(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        message = capsys.readouterr().err
        assert message.startswith("leandit: ")
        assert "Traceback" not in message
        assert len(message.splitlines()) <= 14
        return message

    return run
