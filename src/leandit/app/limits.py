"""Limits against crowds: how many requests wait, how long a connection says nothing, how long nobody fetches."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from leandit.app.gate import API, DRAW, Message, Receive, Scope, Send, answer, read_body, replay

FETCH_SECONDS = 20.0
"""A drawing that nobody fetches ends after this time."""
SILENT_SECONDS = 10.0
"""A connection without a complete request is closed after one to two times this time."""
_RETRY_SECONDS = 5
_JOIN = f"{API}/queue/join"
_RESULT = re.compile(rf"{DRAW}/(\w+)")
_STREAM = f"{API}/queue/data"
_SESSION = re.compile(rb"(?:^|&)session_hash=([\w-]+)")


class Limits:
    """An ASGI application around another one, behind the gate. It answers 503 with Retry-After if the queue is full.

    `waiting` is the number of requests in the queue; a request that is on its way into the queue counts as well, so at
    most `most` wait however many arrive at once. A request for a drawing, or the session of a page, that nobody fetches
    within `seconds` is passed to `drop`.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        waiting: Callable[[], int],
        most: int,
        drop: Callable[[str], Awaitable[None]],
        seconds: float = FETCH_SECONDS,
    ) -> None:
        self.app = app
        self.waiting = waiting
        self.most = most
        self.drop = drop
        self.seconds = seconds
        self._joining = 0
        self._fetchers: Counter[str] = Counter()  # open streams by session
        self._sessions: dict[str, str] = {}  # of drawings that nobody has fetched yet, by their id
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path"))
        if scope["type"] == "http" and scope["method"] == "POST" and path in (DRAW, _JOIN):
            return await self._join(scope, receive, send)
        session = _session_of_stream(scope, path, self._sessions) if scope["type"] == "http" else None
        if session is None:
            return await self.app(scope, receive, send)
        self._fetchers[session] += 1
        try:
            return await self.app(scope, receive, send)
        finally:
            self._fetchers -= Counter([session])  # forgets what has come to 0

    async def _join(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.waiting() + self._joining >= self.most:
            detail = f"{self.most} requests are waiting, which is the most; try again in {_RETRY_SECONDS} seconds"
            await answer(send, 503, detail, [(b"retry-after", str(_RETRY_SECONDS).encode())])
            return
        self._joining += 1
        try:
            body = await read_body(receive) or b""
            content = bytearray()

            async def watched(message: Message) -> None:
                content.extend(message.get("body", b""))
                await send(message)

            await self.app(scope, replay(body, receive), watched)
        finally:
            self._joining -= 1
        self._expect(json.loads(body), bytes(content))

    def _expect(self, request: dict[str, Any], reply: bytes) -> None:
        try:
            name = json.loads(reply)["event_id"]
        except (ValueError, KeyError, TypeError):
            return  # refused
        session = request.get("session_hash") or name
        self._sessions[name] = session
        task = asyncio.get_running_loop().create_task(self._drop_unfetched(name, session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drop_unfetched(self, name: str, session: str) -> None:
        await asyncio.sleep(self.seconds)
        fetched = self._sessions.pop(name, None) is None or self._fetchers[session] > 0
        if not fetched:
            await self.drop(session)


def _session_of_stream(scope: Scope, path: str, sessions: dict[str, str]) -> str | None:
    """Return the session whose messages the request fetches. The id of a drawing is forgotten, since it is fetched."""
    if named := _RESULT.fullmatch(path):
        return sessions.pop(named[1], named[1])
    found = _SESSION.search(scope["query_string"]) if path == _STREAM else None
    return found[1].decode() if found else None


def impatient(protocol: type) -> type:
    """Return uvicorn's HTTP protocol, with connections that say nothing, or never finish a request, closed.

    uvicorn itself waits without a limit for the first request of a connection, and for the rest of each.
    """

    class Impatient(protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._silent = False
            self._look = self.loop.call_later(SILENT_SECONDS, self._close_if_silent)

        def connection_lost(self, error: Exception | None) -> None:
            self._look.cancel()
            super().connection_lost(error)

        def _close_if_silent(self) -> None:
            idle = self.cycle is None or self.cycle.response_complete or self.cycle.more_body
            if idle and self._silent:
                self.transport.close()
                return
            self._silent = idle
            self._look = self.loop.call_later(SILENT_SECONDS, self._close_if_silent)

    return Impatient
