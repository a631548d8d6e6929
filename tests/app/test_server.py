"""The server over HTTP: what is drawn, what is refused, what is not there, and work that stops with its visitor."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from page_server import DRAWING, Server


def test_a_drawing_is_streamed_and_ends_with_all_frames(server: Server) -> None:
    event = server.draw(*DRAWING).json()["event_id"]
    kind, (view, over_time, load) = server.result(event)
    assert kind == "complete"
    assert view.count("data:image/png;base64,") == 2
    assert 'type="range" min="0" max="7"' in view  # 7 evaluations and the finished picture
    assert over_time["visible"] is True
    assert "Load per expert" in json.dumps(load)


def test_the_budget_changes_the_drawing(server: Server) -> None:
    views = {}
    for budget in (0.5, 1.0, 2.0, 1.0):
        event = server.draw(*DRAWING[:6], budget).json()["event_id"]
        _, (view, _, _) = server.result(event)
        assert views.setdefault(budget, view) == view  # the same request is the same drawing
    assert len(set(views.values())) == 3


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({0: "other"}, "unknown run"),
        ({0: 7}, "is not a name"),
        ({1: "a" * 10_000, 2: "dog"}, "one of heart, cat"),
        ({2: {"x": []}}, "neither a name nor a number"),
        ({3: -1}, "seed"),
        ({4: 10**9}, "steps"),
        ({5: "2"}, "guidance"),
        ({6: 3}, "compute budget"),
    ],
)
def test_values_out_of_range_are_refused(server: Server, changed: dict[int, Any], words: str) -> None:
    answer = server.draw(*(changed.get(place, value) for place, value in enumerate(DRAWING)))
    assert answer.status_code == 422
    assert words in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"data": ["run", "", "cat", NaN, 4, 2, 1]}', 400),
        ('{"data": ["run", "", "cat", 1, 4, -Infinity, 1]}', 400),
        ('{"data": ["run", "", "cat", 1, 4, 1e999, 1]}', 400),
        ('{"data": ["run", "", "cat", %s, 4, 1, 1]}' % ("9" * 5000), 400),
        ("[" * 50_000, 400),
        (b"\xff\xfe", 400),
        ("", 400),
        ("7", 400),
        ('{"data": {}}', 400),
        ('{"data": []}', 400),
        ('{"data": [1, 2, 3, 4, 5, 6, 7, 8]}', 400),
        ('{"data": "%s"}' % ("x" * 100_000), 413),
    ],
)
def test_what_is_no_request_is_refused(server: Server, body: str | bytes, status: int) -> None:
    answer = server.post("call/draw", body)
    assert answer.status_code == status
    assert answer.json()["detail"]


@pytest.mark.parametrize("content", [{"fn_index": 99}, {"fn_index": "0"}, {"fn_index": True}, {}])
def test_events_that_the_page_has_not_are_refused(server: Server, content: dict[str, Any]) -> None:
    for path in ("queue/join", "run/predict"):
        body = {"data": [], "session_hash": "abc", **content}
        assert server.post(path, body).status_code == 400


def test_the_queue_cannot_be_passed_by(server: Server) -> None:
    config = httpx.get(f"{server.url}config", trust_env=False).json()
    (draw,) = [event["id"] for event in config["dependencies"] if event["api_name"] == "draw"]
    answer = server.post("run/predict", {"data": DRAWING, "fn_index": draw, "session_hash": "abc"})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        *("gradio_api/upload_progress", "gradio_api/file=/etc/passwd", "gradio_api/proxy=http://localhost/", "login"),
        *("monitoring", "monitoring/summary", "docs", "redoc", "openapi.json", "gradio_api/openapi.json", "dev/reload"),
        *("gradio_api/deep_link", "gradio_api/runs", "assets/%2e%2e/%2e%2e/config", "static/../config.json"),
    ],
)
def test_addresses_that_a_page_does_not_need_are_not_there(server: Server, path: str) -> None:
    assert httpx.get(server.url + path, trust_env=False).status_code == 404


def test_nothing_can_be_uploaded(server: Server) -> None:
    files = {"files": ("a.txt", b"hello")}
    assert httpx.post(f"{server.url}gradio_api/upload", files=files, trust_env=False).status_code == 404
    assert httpx.put(server.url, content=b"x", trust_env=False).status_code == 405


def test_a_page_of_another_site_may_not_draw(server: Server) -> None:
    url, body = f"{server.url}gradio_api/call/draw", json.dumps({"data": DRAWING})
    foreign = httpx.post(url, content=body, headers={"origin": "http://evil.example"}, trust_env=False)
    assert foreign.status_code == 403
    own = httpx.post(
        url,
        content=body,
        headers={"origin": server.url.rstrip("/"), "content-type": "application/json"},
        trust_env=False,
    )
    assert own.status_code == 200
    odd = httpx.post(url, content=body, headers={"origin": "http://["}, trust_env=False)
    assert odd.status_code == 403
    assert server.result(own.json()["event_id"])[0] == "complete"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{}", "localhost.evil.example:{}", "[", "[::1", ":{}"])
def test_a_name_that_leads_here_is_no_way_in(server: Server, host: str) -> None:
    port = server.url.rstrip("/").rsplit(":", 1)[1]
    headers = {"host": host.format(port)}
    for path in ("", "config"):
        assert httpx.get(server.url + path, headers=headers, trust_env=False).status_code == 403
    url, body = f"{server.url}gradio_api/call/draw", json.dumps({"data": DRAWING})
    headers["origin"] = f"http://{headers['host']}"
    assert httpx.post(url, content=body, headers=headers, trust_env=False).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:{}", "localhost:{}", "LOCALHOST:8000", "[::1]:{}", "[::1]", "localhost"])
def test_names_of_this_machine_are_answered(server: Server, host: str) -> None:
    port = server.url.rstrip("/").rsplit(":", 1)[1]
    headers = {"host": host.format(port)}
    assert httpx.get(f"{server.url}config", headers=headers, trust_env=False).status_code == 200


def test_events_without_a_function_are_refused(server: Server) -> None:
    config = httpx.get(f"{server.url}config", trust_env=False).json()
    numbers = [event["id"] for event in config["dependencies"] if not event["backend_fn"]]
    assert len(numbers) >= 3  # Random seed, Stop and another run
    for number in numbers:
        body = {"data": [], "fn_index": number, "session_hash": "abc"}
        assert [server.post(path, body).status_code for path in ("queue/join", "run/predict")] == [400, 400]


def test_a_drawing_that_is_not_there(server: Server) -> None:
    assert httpx.get(f"{server.url}gradio_api/call/draw/zzz", trust_env=False).status_code == 404
    event = server.draw(*DRAWING).json()["event_id"]
    assert server.result(event)[0] == "complete"
    assert httpx.get(f"{server.url}gradio_api/call/draw/{event}", trust_env=False).status_code == 404


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    port = int(server.url.rstrip("/").rsplit(":", 1)[1])
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
    ]
    assert listening == [f"0100007F:{port:04X}"]


def busy(server: Server) -> float:
    """Processor seconds that the server uses in a while."""

    def used() -> int:
        return sum(map(int, Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))

    before = used()
    time.sleep(1)
    return (used() - before) / 100


def test_work_stops_when_the_visitor_leaves(server: Server) -> None:
    long = [*DRAWING[:4], 200, 2.0, 1.0]
    event = server.draw(*long).json()["event_id"]
    with httpx.stream("GET", f"{server.url}gradio_api/call/draw/{event}", timeout=60, trust_env=False) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        shown = [next(lines) for _ in range(3)]
    assert "of 399" in shown[-1]
    left = time.monotonic()
    # The next visitor is served at once: had the first drawing gone on, this one would have waited for all of it.
    kind, _ = server.result(server.draw(*DRAWING).json()["event_id"])
    assert kind == "complete"
    assert time.monotonic() - left < 20
    assert busy(server) < 0.5


def test_ctrl_c_ends_it_in_the_middle_of_a_drawing(start_server: Callable[..., Server], tiny_run: Path) -> None:
    server = start_server(tiny_run)
    event = server.draw(*DRAWING[:4], 200, 2.0, 1.0).json()["event_id"]
    with httpx.stream("GET", f"{server.url}gradio_api/call/draw/{event}", timeout=60, trust_env=False) as answer:
        next(answer.iter_lines())
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) in (0, 130)
