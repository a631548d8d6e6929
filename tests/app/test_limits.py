"""The bound of the queue, drawings that nobody fetches, and connections that say nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from page_server import DRAWING, Server

from leandit.app import limits
from leandit.app.limits import Limits, impatient

JOIN = {"type": "http", "method": "POST", "path": "/gradio_api/call/draw", "query_string": b"", "headers": []}


class SlowQueue:
    """An application whose queue takes a request only some time after it looked at its length, as Gradio's does."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.longest = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "GET":
            await asyncio.sleep(0.3)
            return
        await receive()
        await asyncio.sleep(0.01)
        self.events.append(f"event{len(self.events)}")
        self.longest = max(self.longest, len(self.events))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = json.dumps({"event_id": self.events[-1]}).encode()
        await send({"type": "http.response.body", "body": body})


async def ask(app: Limits, scope: dict[str, Any], body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": json.dumps(body or {}).encode(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        return waiting.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def limited(inner: SlowQueue, most: int, dropped: list[str], seconds: float = 5) -> Limits:
    async def drop(session: str) -> None:
        dropped.append(session)

    return Limits(inner, lambda: len(inner.events), most, drop, seconds)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def body() -> Any:
        return await work()

    return asyncio.run(body())


def test_requests_that_arrive_at_once_do_not_pass_the_bound() -> None:
    inner = SlowQueue()
    app = limited(inner, 8, [])

    async def crowd() -> list[Any]:
        return await asyncio.gather(*(ask(app, JOIN) for _ in range(60)))

    starts = [messages[0] for messages in run(crowd)]
    assert inner.longest == 8
    assert [start["status"] for start in starts].count(503) == 52
    refused = next(start for start in starts if start["status"] == 503)
    assert dict(refused["headers"])[b"retry-after"].isdigit()


@pytest.mark.parametrize("given", [None, "visitor"])
def test_a_drawing_that_nobody_fetches_is_dropped(given: str | None) -> None:
    inner, dropped = SlowQueue(), []
    app = limited(inner, 8, dropped, seconds=0.05)
    session = {"session_hash": given} if given else {}

    async def visits() -> None:
        for _ in range(3):
            await ask(app, JOIN, session)
        # The second is fetched; a page fetches all messages of its session.
        stream = {**JOIN, "method": "GET"}
        fetched = (
            ("/gradio_api/queue/data", b"session_hash=visitor") if given else ("/gradio_api/call/draw/event1", b"")
        )
        await asyncio.gather(ask(app, {**stream, "path": fetched[0], "query_string": fetched[1]}), asyncio.sleep(0.2))

    run(visits)
    assert dropped == ([] if given else ["event0", "event2"])
    assert not app._fetchers  # nothing is kept
    assert not app._sessions


def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    monkeypatch.setattr(limits, "SILENT_SECONDS", 0.2)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await asyncio.sleep(1.0)  # longer than silence is borne: work is not silence
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off")
    config.load()
    config.http_protocol_class = impatient(config.http_protocol_class)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        address = server.servers[0].sockets[0].getsockname()
        silent, halting = (socket.create_connection(address, timeout=3) for _ in range(2))
        halting.sendall(b"GET / HTTP/1.1\r\nHost:")
        assert httpx.get(f"http://127.0.0.1:{address[1]}/", trust_env=False).text == "done"
        assert [one.recv(1) for one in (silent, halting)] == [b"", b""]
    finally:
        server.should_exit = True
        thread.join()


def test_a_full_queue_says_when_to_come_back(server: Server) -> None:
    with ThreadPoolExecutor(40) as visitors:
        answers = list(visitors.map(lambda number: server.draw(*DRAWING), range(40)))
    taken = [answer for answer in answers if answer.status_code == 200]
    assert len(taken) <= 16 + 1 + 1  # the queue's size, one that is drawn, and one that was drawn meanwhile
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(taken) + len(refused) == 40
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    for answer in taken:
        server.result(answer.json()["event_id"])
