"""A running `leandit serve`, and the sender of requests to it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx

# A drawing of the preset `tiny`, as the page sends it: run, prompt, label, seed, steps, guidance, budget.
DRAWING = ["run", "", "cat", 3, 4, 2.0, 1.0]


class Server:
    """A running `leandit serve`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.evaluations = 0  # that a stepwise server was let make

    def post(self, path: str, content: Any) -> httpx.Response:
        body = content if isinstance(content, str | bytes) else json.dumps(content)
        headers = {"content-type": "application/json"}
        return httpx.post(f"{self.url}gradio_api/{path}", content=body, headers=headers, timeout=60, trust_env=False)

    def draw(self, *inputs: Any) -> httpx.Response:
        """Join the queue; the answer names the event."""
        return self.post("call/draw", {"data": list(inputs)})

    def result(self, event: str) -> tuple[str, Any]:
        """Wait until a drawing has ended; return how (complete or error) and its data."""
        url = f"{self.url}gradio_api/call/draw/{event}"
        with httpx.stream("GET", url, timeout=120, trust_env=False) as answer:
            kind = ""
            for line in answer.iter_lines():
                kind = line.removeprefix("event: ") if line.startswith("event: ") else kind
                if line.startswith("data: ") and kind in ("complete", "error"):
                    return kind, json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream ended without a result")

    def evaluate(self, count: int = 1) -> None:
        """Let the networks of a stepwise server make so many evaluations more."""
        assert self.process.stdin is not None
        self.process.stdin.write("." * count)
        self.process.stdin.flush()
        self.evaluations += count

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
