"""`leandit compare`: what differs between runs, as a table, as a record and as a page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

import leandit
from leandit.cli import main
from leandit.run.comparison import IMBALANCE


@pytest.fixture
def runs(tiny_run: Path, tmp_path: Path) -> Path:
    """Two runs that differ in a setting and in one that only one of them has, with known numbers."""
    folder = tmp_path / "runs"
    for name, lr, loss, moe in (("a", 1e-3, 0.5, True), ("b", 2e-3, 0.25, False)):
        shutil.copytree(tiny_run, folder / name)
        tree = json.loads((folder / name / "config.json").read_text())
        tree["optimizer"]["lr"] = lr
        if not moe:
            tree["model"]["moe"] = None
        (folder / name / "config.json").write_text(json.dumps(tree))
        layers = {"max_violation/blocks.0.moe": 0.2, "max_violation/blocks.1.moe": 0.6} if moe else {}
        lines = [{"step": 10, "loss": 2 * loss, **layers}, {"step": 20, "loss": loss}]
        (folder / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_record(runs: Path) -> None:
    found = leandit.compare([runs / "a", runs / "b"])
    order = [run.path.name for run in found.runs]
    assert sorted(order) == ["a", "b"]
    by_name = {key: dict(zip(order, values, strict=True)) for key, values in found.settings.items()}
    assert by_name["optimizer.lr"] == {"a": 1e-3, "b": 2e-3}
    assert by_name["model.moe.num_experts"] == {"a": 4, "b": None}
    assert set(by_name) - {"optimizer.lr"} == {key for key in by_name if key.startswith("model.moe")}
    curves = {name: dict(zip(order, each, strict=True)) for name, each in found.curves.items()}
    assert curves["loss"] == {"a": ([10, 20], [1.0, 0.5]), "b": ([10, 20], [0.5, 0.25])}
    assert curves[IMBALANCE]["a"] == ([10], [pytest.approx(0.4)])
    assert curves[IMBALANCE]["b"] == ([], [])
    assert set(curves) == {"loss", IMBALANCE}


class Texts(HTMLParser):
    """The cells of a page, and what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.sources: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag in ("td", "th")
        if self.inside:
            self.cells.append("")
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[-1] += data


def test_the_table_and_the_page(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (runs / "a").rename(runs / "a <b>$x$")
    assert main(["compare", "runs"]) == 0
    out = capsys.readouterr().out
    assert any(
        line.split() in (["optimizer.lr", "0.001", "0.002"], ["optimizer.lr", "0.002", "0.001"])
        for line in out.splitlines()
    )
    page = Texts()
    page.feed((tmp_path / "comparison/comparison.html").read_text())
    assert "runs/a <b>$x$" in page.cells
    assert {"optimizer.lr", "0.001", "0.002", "0.25", "0.5"} <= set(page.cells)
    assert [source[:22] for source in page.sources] == ["data:image/png;base64,"]
    assert (tmp_path / "comparison/curves.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["compare", "runs"]) == 0  # nothing is overwritten
    assert (tmp_path / "comparison-2/comparison.html").exists()


def test_mistakes(runs: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "at least two runs" in fails("compare", str(runs / "a"))
    assert main(["compare", str(runs), "--out", str(tmp_path / "out")]) == 0
    assert "has a comparison already" in fails("compare", str(runs), "--out", str(tmp_path / "out"))
    (runs / "b/metrics.jsonl").write_text('not json\n{"step": 2}\n')
    assert "metrics.jsonl" in fails("compare", str(runs), "--out", str(tmp_path / "other"))
