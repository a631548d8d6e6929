"""Put the figures of a results file of speed into docs/speed.md, between its two marks.

    python benchmarks/speed_page.py benchmarks/results/amd-epyc_2026-11-22.md

Tables of the results file are read by their headings; nothing is computed anew.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from contest import table

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
MARKS = ("<!-- speed: made by benchmarks/speed_page.py -->", "<!-- end of speed -->")
OURS = ("ours", "ours, routed", "dense, torch")
PEERS = ("Mixtral grouped_mm", "NucleusMoE", "one-hot")


def main(results: Path) -> None:
    """Rewrite the page's section."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(page, section(results)), encoding="utf-8")


def replaced(page: str, text: str) -> str:
    """Return the page with another text between the marks."""
    start, end = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
    return f"{page[:start]}\n\n{text}\n{page[end:]}"


def section(results: Path) -> str:
    """Return the page's section for a results file."""
    text = results.read_text(encoding="utf-8")
    setting = text.splitlines()[2].split("; load")[0]
    parts = [
        f"On {setting} ([all results](../benchmarks/results/{results.name}), `make bench`):",
        _layers(_rows(text, "MoE layer")),
        _models(_rows(text, "Whole models")),
        _selection(_rows(text, "Selection")),
    ]
    return "\n\n".join(parts) + "\n"


def _rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading, without its head."""
    body = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in body.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _layers(rows: list[list[str]]) -> str:
    """Experts and what else one would pick, forward and backward, over the dense feed-forward."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for width, routing, dtype, layer, *cells in rows:
        found.setdefault((width, routing, dtype), {})[layer] = cells[6]
    head = ("d", "routing", "dtype", *OURS, *PEERS)
    body = [[*key, *(cell.get(name, "") for name in (*OURS, *PEERS))] for key, cell in found.items()]
    title = "Time of forward and backward of a layer of experts, over that of our dense feed-forward with the same "
    title += "activated FLOPs. "
    title += "Experts alone are `ours`; `ours, routed` has Expert Race's two-layer router (13 to 17 % more FLOPs), and "
    title += "the others have their linear ones. In float32 our products go through oneDNN, the others' through MKL."
    return f"{title}\n\n{table(head, body)}"


def _models(rows: list[list[str]]) -> str:
    head = ("first : second", "precision", "step", "first over second", "FLOPs")
    title = "Whole models: time of a step of the first over that of the second, and FLOPs of a forward pass likewise:"
    return f"{title}\n\n{table(head, [[row[0], row[1], row[2], row[6], row[7]] for row in rows])}"


def _selection(rows: list[list[str]]) -> str:
    faster = {row[0]: row[4] for row in rows}
    return "The race's cutoff is found {} times as fast as by `torch.topk` at 2^21 scores.".format(faster["2^21"])


if __name__ == "__main__":
    if len(sys.argv) != 2 or not re.search(r"\.md$", sys.argv[1]):
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
