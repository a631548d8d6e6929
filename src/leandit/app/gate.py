"""A filter in front of the server. It lets through the few addresses that the page needs, and valid small requests.

Gradio also has addresses for uploads, files, proxies, recordings and more, which this page does not need.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_MAX_BODY = 64 * 1024
API = "/gradio_api"
_PAGES = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/(assets|static|svelte)/[\w./@+-]+"
    rf"|{API}/(startup-events|app_id|info/?|theme\.css|queue/data|heartbeat/\w+|call/draw/\w+)"
)
_RESULT = re.compile(rf"{API}/call/draw/(\w+)")
DRAW = f"{API}/call/draw"
# Requests to these addresses contain the number and the inputs of one of the page's events.
_EVENTS = (f"{API}/queue/join", f"{API}/run/predict")
_ACTIONS = (DRAW, *_EVENTS, f"{API}/cancel", f"{API}/reset")
_SESSION = re.compile(r"[\w-]{1,64}")


class Gate:
    """An ASGI application around another one. It answers requests that must not reach the inner application:

    404 for an address that the page does not need, 403 for a POST from a page of another site, 413 for a large body,
    400 for a body that is not a JSON object of finite numbers or has the wrong number of inputs for its event.

    `events` maps the number of each event of the page to its number of inputs. `draw` is the number of the event that
    draws. `is_drawing` says whether there is a drawing with a given id; if not, the answer is 404. `hosts` are the host
    names that a request may use, with any port; None allows all. Another name gets 403, so that a site whose name
    resolves to this machine cannot read answers (DNS rebinding).
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        events: Mapping[int, int],
        draw: int,
        is_drawing: Callable[[str], bool],
        hosts: Collection[str] | None = None,
    ) -> None:
        self.app = app
        self.events = events
        self.draw = draw
        self.is_drawing = is_drawing
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None
        refusal = self._judge_host(scope) or _judge_address(scope) or self._judge_result(str(scope["path"]))
        if refusal is None and scope["method"] == "POST":
            body = await read_body(receive)
            refusal = self._judge_body(scope["path"], body)
            receive = replay(body or b"", receive)
        if refusal is not None:
            return await answer(send, *refusal)
        return await self.app(scope, receive, send)

    def _judge_host(self, scope: Scope) -> tuple[int, str] | None:
        host = _headers(scope).get("host", "")
        if self.hosts is None or re.sub(r":\d*$", "", host).lower() in self.hosts:
            return None
        return 403, "this server does not allow this host name"

    def _judge_result(self, path: str) -> tuple[int, str] | None:
        named = _RESULT.fullmatch(path)
        return (404, "there is no such drawing") if named and not self.is_drawing(named[1]) else None

    def _judge_body(self, path: str, body: bytes | None) -> tuple[int, str] | None:
        if body is None:
            return 413, f"the request is larger than {_MAX_BODY // 1024} KiB"
        try:
            content = json.loads(body, parse_constant=_refuse, parse_float=_finite)
        except (ValueError, RecursionError):
            return 400, "the request is not JSON of finite numbers in UTF-8"
        if not isinstance(content, dict):
            return 400, "the request is not a JSON object"
        session = content.get("session_hash")
        if session is not None and not (isinstance(session, str) and _SESSION.fullmatch(session)):
            return 400, "session_hash must be a name of letters and digits"
        if path == DRAW:
            return self._judge_inputs(self.draw, content.get("data"))
        return self._judge_inputs(content.get("fn_index"), content.get("data")) if path in _EVENTS else None

    def _judge_inputs(self, event: object, data: object) -> tuple[int, str] | None:
        if isinstance(event, bool) or not isinstance(event, int) or event not in self.events:
            return 400, "fn_index is not the number of an event of this page"
        if not isinstance(data, list) or len(data) != self.events[event]:
            return 400, f"data must be a list of {self.events[event]} inputs"
        return None


def _judge_address(scope: Scope) -> tuple[int, str] | None:
    path, method = str(scope["path"]), scope["method"]
    if method in ("GET", "HEAD"):
        return None if _PAGES.fullmatch(path) and ".." not in path else (404, "there is no such page")
    if method != "POST":
        return 405, "only GET and POST are answered"
    if path not in _ACTIONS:
        return 404, "there is no such address"
    headers = _headers(scope)
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return 403, "pages of other sites cannot use this server"
    return None


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


async def read_body(receive: Receive) -> bytes | None:
    """Return the body, or None as soon as it is too large."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _MAX_BODY:
            return None
        if not message.get("more_body", False):
            return body


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that first returns the body that was read, and then calls the original."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


async def answer(send: Send, status: int, detail: str, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Send a JSON object with the detail."""
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
