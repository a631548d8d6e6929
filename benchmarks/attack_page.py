"""Attack a page: simultaneous requests, connections that say nothing, visitors that leave, SIGTERM in a drawing.

    python benchmarks/attack_page.py RUN [--queue 8] [--connections 300] [--seconds 15]

RUN is what `leandit serve` takes, for example `emoji`. Prints what was measured, one line for each attack.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx


class Page:
    """A server in a process of its own."""

    def __init__(self, run: str, queue: int) -> None:
        command = [sys.executable, "-m", "leandit", "serve", run, "--port", "0", "--queue", str(queue)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = next(line for line in self.process.stdout if " on http" in line).split(" on ")[1].strip()
        config = httpx.get(f"{self.url}config", trust_env=False).json()
        names = {part["id"]: part["props"] for part in config["components"]}
        (draw,) = (event for event in config["dependencies"] if event["api_name"] == "draw")
        self.inputs = [names[number].get("value") for number in draw["inputs"]]

    def draw(self, steps: int | None = None) -> httpx.Response:
        inputs = list(self.inputs)
        if steps is not None:
            inputs[4] = steps
        return httpx.post(f"{self.url}gradio_api/call/draw", json={"data": inputs}, timeout=120, trust_env=False)

    def messages(self, event: str) -> Any:
        return httpx.stream("GET", f"{self.url}gradio_api/call/draw/{event}", timeout=300, trust_env=False)

    def finish(self, event: str) -> str:
        """Wait for the end of a drawing and return its kind."""
        with self.messages(event) as answer:
            for line in answer.iter_lines():
                if line in ("event: complete", "event: error"):
                    return line.removeprefix("event: ")
        return "nothing"


def crowd(page: Page, queue: int) -> str:
    with ThreadPoolExecutor(60) as visitors:
        answers = list(visitors.map(lambda number: page.draw(), range(60)))
    codes = Counter(answer.status_code for answer in answers)
    retry = all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)
    ends = Counter(page.finish(answer.json()["event_id"]) for answer in answers if answer.status_code == 200)
    drawn = "one is drawn at a time, so more are taken while the others arrive"
    return (
        f"60 at once, queue {queue}: {dict(codes)}, Retry-After on all refusals: {retry}; ends {dict(ends)} ({drawn})"
    )


def idle(page: Page, connections: int, seconds: float) -> str:
    address = (urlsplit(page.url).hostname, urlsplit(page.url).port)
    silent = [socket.create_connection(address) for _ in range(connections)]
    for one in silent[::2]:
        one.sendall(b"GET / HTTP/1.1\r\nHost: 127")
    begun = time.monotonic()
    kind = page.finish(page.draw().json()["event_id"])
    drawn = time.monotonic() - begun
    time.sleep(max(0.0, seconds - drawn))
    kind_later = page.finish(page.draw().json()["event_id"])
    time.sleep(max(0.0, 21 - (time.monotonic() - begun)))
    closed = 0
    for one in silent:
        one.settimeout(0.01)
        with contextlib.suppress(TimeoutError, OSError):
            closed += one.recv(1) == b""
        one.close()
    return (
        f"{connections} connections, half of them with half a request: a drawing ends with {kind} after {drawn:.1f} s, "
        f"{seconds:.0f} s later another with {kind_later}; {closed} were closed within 21 s"
    )


def leave(page: Page) -> str:
    event = page.draw(200).json()["event_id"]
    with page.messages(event) as answer:
        next(answer.iter_lines())
    begun = time.monotonic()
    kind = page.finish(page.draw(1).json()["event_id"])
    waited = time.monotonic() - begun
    return f"a visitor leaves a drawing of 200 steps: the next visitor's ends with {kind} after {waited:.1f} s"


def terminate(page: Page) -> str:
    event = page.draw(200).json()["event_id"]
    with page.messages(event) as answer:
        next(answer.iter_lines())
        begun = time.monotonic()
        page.process.send_signal(signal.SIGTERM)
        code = page.process.wait(60)
    return f"SIGTERM in a drawing: exit status {code} after {time.monotonic() - begun:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--queue", type=int, default=8)
    parser.add_argument("--connections", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    page = Page(options.run, options.queue)
    try:
        print(crowd(page, options.queue), flush=True)
        print(idle(page, options.connections, options.seconds), flush=True)
        print(leave(page), flush=True)
        print(terminate(page), flush=True)
    finally:
        page.process.kill()


if __name__ == "__main__":
    main()
