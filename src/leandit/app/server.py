"""Start and stop the page on this machine: no telemetry, no sharing, no downloads."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from leandit.app.gate import Gate
from leandit.app.limits import Limits, impatient
from leandit.app.page import SCRIPT as PROMPT_SCRIPT
from leandit.app.page import build_page
from leandit.app.runs import ServedRun
from leandit.app.style import CSS
from leandit.app.viewer import SCRIPT as VIEWER_SCRIPT
from leandit.errors import LeanDiTError

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
# Largest number of visitors whose messages are kept until they fetch them.
_SESSIONS = 64
# Features of Gradio that this page does not use: share, record, monitor, open windows, show Gradio's links.
_OFF = (
    "share",
    "show_error",
    "inbrowser",
    "inline",
    "ssr_mode",
    "mcp_server",
    "pwa",
    "run_history",
    "enable_monitoring",
)
_LAUNCH: dict[str, Any] = {
    **dict.fromkeys(_OFF, False),
    "prevent_thread_lock": True,
    "quiet": True,
    "footer_links": [],
    "max_file_size": 1,
    "state_session_capacity": _SESSIONS,
}
_LOOPBACK = ("127.", "localhost", "::1")
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


class PageServer:
    """A page that is served at `url` until `close`."""

    def __init__(self, page: Any, runs: Mapping[str, ServedRun], url: str) -> None:
        self.page = page
        self.runs = runs
        self.url = url

    def close(self) -> None:
        """End running drawings at their next step, and stop the server."""
        for served in self.runs.values():
            served.close()
        # Open pages keep their connections. They are cut after a second, and uvicorn would log each of them.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.page.server.config.timeout_graceful_shutdown = 1
        self.page.close(verbose=False)


def start(runs: Mapping[str, ServedRun], host: str = "127.0.0.1", port: int = 7860, queue: int = 8) -> PageServer:
    """Serve the page in background threads. At most `queue` requests wait; further requests get a 503.

    Port 0 chooses a free port. Raises LeanDiTError if gradio is missing or the host and port cannot be used.
    """
    check_gradio()
    port = free_port(host, port)
    _keep_to_itself(host)
    import gradio as gr

    page = build_page(runs)
    page.queue(max_size=queue, api_open=False, default_concurrency_limit=1)
    page._queue.pending_messages_per_session.max_size = max(_SESSIONS, 4 * queue)
    theme = gr.themes.Default(primary_hue="orange", neutral_hue="slate", font=_FONTS, font_mono=_MONO)
    _, url, _ = page.launch(
        server_name=f"[{host}]" if ":" in host else host,
        server_port=port,
        app_kwargs={
            "middleware": [_gate(page, host), _limits(page, queue)],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
        theme=theme,
        css=CSS,
        head=f"<script>{VIEWER_SCRIPT}{PROMPT_SCRIPT}</script>",
        **_LAUNCH,
    )
    page.server.config.http_protocol_class = impatient(page.server.config.http_protocol_class)
    return PageServer(page, runs, url)


def check_gradio() -> None:
    """Raise LeanDiTError, which says what to install, if gradio or plotly is not installed."""
    missing = [name for name in ("gradio", "plotly") if find_spec(name) is None]
    if missing:
        raise LeanDiTError(f'the page needs {" and ".join(missing)}; install it with: pip install "leandit[serve]"')


def free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0. Raises LeanDiTError if this machine cannot listen on it."""
    if not 0 <= port <= 65535:
        raise LeanDiTError(f"--port {port}: choose a number from 1 to 65535, or 0 for any free port")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError):
        raise LeanDiTError(
            f"--host {host}: not an address of this machine; use 127.0.0.1, or 0.0.0.0 for all addresses"
        ) from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
            return int(probe.getsockname()[1])
        except OSError as error:
            raise LeanDiTError(
                f"--host {host} --port {port}: cannot listen here: {error.strerror}. "
                "Choose another --port (0 for any free one), or stop the program that uses it"
            ) from None


def is_loopback(host: str) -> bool:
    """Return whether the host's address can be reached from this machine only."""
    return host.startswith(_LOOPBACK)


def _keep_to_itself(host: str) -> None:
    """Set the variables that Gradio reads on import: no analytics, no hub, and no proxy for this machine."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"
    os.environ["OTEL_SDK_DISABLED"] = "true"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(part for part in (os.environ.get(name), host, "127.0.0.1", "localhost") if part)


def _gate(page: Any, host: str) -> Any:
    from starlette.middleware import Middleware

    # Events without a function, such as Stop, run in the browser only.
    events = {number: len(event.inputs) for number, event in page.fns.items() if event.fn is not None}
    draw = next(number for number, event in page.fns.items() if event.api_name == "draw")
    hosts = {*_LOCAL_NAMES, f"[{host}]" if ":" in host else host.lower()} if is_loopback(host) else None
    return Middleware(Gate, events=events, draw=draw, is_drawing=lambda name: _is_drawing(page, name), hosts=hosts)


def _limits(page: Any, most: int) -> Any:
    from starlette.middleware import Middleware

    async def drop(session: str) -> None:
        await page._queue.clean_events(session_hash=session)
        page._queue.pending_event_ids_session.pop(session, None)

    return Middleware(Limits, waiting=lambda: len(page._queue), most=most, drop=drop)


def _is_drawing(page: Any, name: str) -> bool:
    """Return whether Gradio keeps messages for the event with this id. Gradio looks in the same two places."""
    queue = page._queue
    return name in queue.event_ids_to_events or any(name in ids for ids in queue.pending_event_ids_session.values())
