"""`leandit serve`: serve a page that draws from runs, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading

from leandit.app.runs import open_runs
from leandit.app.server import check_gradio, free_port, is_loopback, start
from leandit.cli.output import say
from leandit.errors import LeanDiTError


def run(options: argparse.Namespace) -> int:
    """Load the runs, serve the page, and return 0 after Ctrl-C or SIGTERM."""
    # Check everything that needs no model first, because loading takes long.
    check_gradio()
    if not 1 <= options.queue <= 10_000:
        raise LeanDiTError(f"--queue {options.queue}: choose a number from 1 to 10000")
    free_port(options.host, options.port)
    runs = open_runs(options.folders, options.device, options.precision)
    server = start(runs, options.host, options.port, options.queue)
    try:
        names = ", ".join(f"{name} (step {served.run.step})" for name, served in runs.items())
        say(f"Serving {names} on {server.url}")
        if not is_loopback(options.host):
            say(f"Everyone who can reach {options.host} can draw: there is no password")
        say("Stop with Ctrl-C")
        # Both signals stop the server in the same way, also if a shell has started it in the background.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        say("\nStopping")
    finally:
        server.close()
    return 0
