"""Lines on stdout whose reader may have gone away, as in `leandit train ... | head -1`."""

from __future__ import annotations

import os
import sys


def say(text: str = "") -> None:
    """Print a line at once; when nobody can read it, go on without."""
    try:
        print(text, flush=True)
    except OSError:
        discard_output()


def discard_output() -> None:
    """Send what is printed from now on, and what stdout still buffers, to nowhere."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # no real file, as under a test
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
