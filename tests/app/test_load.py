"""200 requests, 50 at a time, 30 % of them hostile."""

from __future__ import annotations

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from page_server import DRAWING, Server

# What an allocator keeps and caches that fill up once; a leak of what each request needs would be more.
MARGIN = 48 * 2**20

HOSTILE = [
    '{"data": ["run", "", "cat", NaN, 4, 2, 1]}',
    '{"data": ["run", "", "cat", 1, 1e999, 2, 1]}',
    json.dumps({"data": ["run", "x" * 10_000, "dog", 1, 4, 2, 1]}),
    json.dumps({"data": ["run", None, {"a": []}, "1", None, [], True]}),
    json.dumps({"data": ["../../etc", "", "cat", 1, 4, 2, 1]}),
    json.dumps({"data": ["run", "", "cat", -1, 10**9, -5, 1000]}),
    json.dumps({"data": "x" * 200_000}),
    "{" * 10_000,
    b"\x00\xff" * 100,
    json.dumps({"data": []}),
]


def visit(server: Server, number: int) -> str:
    """Make one request to its end; return what became of it."""
    chooser = random.Random(number)
    if chooser.random() < 0.3:
        status = server.post("call/draw", chooser.choice(HOSTILE)).status_code
        return f"hostile {status}"
    seed, budget = chooser.randrange(1000), chooser.choice((0.5, 1.0, 2.0))
    answer = server.draw(*DRAWING[:3], seed, 2, 2.0, budget)
    if answer.status_code != 200:
        return f"refused {answer.status_code}"
    kind, data = server.result(answer.json()["event_id"])
    assert kind == "complete", data
    assert data[0].count("data:image/png") == 2
    return "drawn"


def crowd(server: Server, numbers: range) -> Counter[str]:
    with ThreadPoolExecutor(50) as visitors:
        return Counter(visitors.map(lambda number: visit(server, number), numbers))


def test_a_crowd_with_hostile_visitors(server: Server) -> None:
    # The first crowd fills what is filled once: threads, imports, caches.
    crowd(server, range(1000, 1040))
    before = server.memory()
    results = crowd(server, range(200))
    after = server.memory()
    print(dict(results), f"memory {before / 2**20:.0f} -> {after / 2**20:.0f} MiB")
    hostile = {name: count for name, count in results.items() if name.startswith("hostile")}
    # A full queue comes before a look at the values.
    assert {*hostile} <= {"hostile 400", "hostile 413", "hostile 422", "hostile 503"}
    assert 40 <= sum(hostile.values()) <= 80
    assert results["drawn"] >= 16
    assert results["refused 503"] > 0
    assert results["drawn"] + results["refused 503"] + sum(hostile.values()) == 200
    assert server.process.poll() is None
    assert after - before < MARGIN
    assert visit(server, 1) in ("drawn", "hostile 400", "hostile 413", "hostile 422")
