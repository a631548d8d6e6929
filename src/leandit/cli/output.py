"""Print lines even if the reader of stdout is gone, as in `leandit train ... | head -1`."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass
from typing import IO

from leandit.errors import printable


@dataclass
class Talk:
    """What the program says besides results and errors; the option -q sets `quiet`."""

    quiet: bool = False


TALK = Talk()


def status(text: str, file: IO[str] | None = None) -> None:
    """Print a line about what the program does, unless it is to be quiet; results are for `say`."""
    if not TALK.quiet:
        say(text, file)


def say(text: str = "", file: IO[str] | None = None) -> None:
    """Print a line immediately. If stdout is closed, discard this line and all later output."""
    try:
        print(printable(text), flush=True, file=file)
    except OSError:
        if file is None:
            discard_output()


def accept_any_text() -> None:
    """Let the terminal show a code for each character that its encoding does not have, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Discard the buffer of stdout and everything that is printed later."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # stdout is not a real file, as in a test
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
