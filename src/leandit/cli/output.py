"""Print lines even if the reader of stdout is gone, as in `leandit train ... | head -1`."""

from __future__ import annotations

import os
import sys


def say(text: str = "") -> None:
    """Print a line immediately. If stdout is closed, discard this line and all later output."""
    try:
        print(text, flush=True)
    except OSError:
        discard_output()


def discard_output() -> None:
    """Discard the buffer of stdout and everything that is printed later."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # stdout is not a real file, as in a test
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
