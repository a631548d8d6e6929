"""The page in a real browser: it needs no network, its maps follow the slider, names are taken literally."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from routed_models import class_run, text_run

from leandit.probing import build_report, draw_recorded, write_report

pytest.importorskip("plotly")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


# What plotly was given to draw on the card of that name.
DRAWN_SIMILARITY = """
    [...document.querySelectorAll("article")].find((card) => card.textContent.startsWith("Similarity"))
        .querySelector(".plot").data[0].z
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one` holds the page of a report, `two` that of two reports of unlike runs, `layers` one without maps, and
    `signs` one of prompts without a word.
    """
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("pages")
    drawn = draw_recorded(class_run(), [0, 1, 2], [0, 1, 2])
    other = draw_recorded(class_run(num_experts=6, steps=5, strategy="token_choice"), [0, 2], [3, 4])
    reports = [build_report(drawn), build_report(other)]
    write_report(reports[:1], [drawn], out / "one", figures=False)
    write_report(reports, [drawn, other], out / "two", figures=False)
    write_report([build_report(drawn, ["layer"])], [drawn], out / "layers", figures=False)
    signs = draw_recorded(text_run(), ["!!!", "?"], [0, 1])
    write_report([build_report(signs)], [signs], out / "signs", figures=False)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def unpacked(page: str, name: str) -> str:
    packed = re.search(rf'id="{name}">([^<]+)</script>', page)
    assert packed
    return gzip.decompress(base64.b64decode(packed[1])).decode()


def test_the_page_holds_everything_and_asks_for_nothing(folder: Path) -> None:
    page = (folder / "one/report.html").read_text()
    payload = json.loads(unpacked(page, "payload"))
    assert payload["reports"] == [json.loads((folder / "one/report.json").read_text())]
    assert [image["side"] for image in payload["images"][0]] == [16, 16, 16]
    assert "Plotly" in unpacked(page, "plotly")
    shell = re.sub(r'(id="(?:payload|plotly)">)[^<]+', r"\1", page)
    assert not re.search(r"https?:|url\(|@import|<link[^>]+href=\"(?!data:)|\ssrc=", shell)
    assert "Routing of ants &amp; bees" in shell
    assert 1e6 < len(page) < 3e6


def opened(browser: Any, path: Path, width: int) -> tuple[Any, list[str]]:
    page = browser.new_page(viewport={"width": width, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=120_000)
    return page, problems


def maps(page: Any) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('canvas.map')].map((canvas) => canvas.toDataURL())")


def means(page: Any) -> list[float]:
    return [float(text) for text in page.locator("b.mean").all_inner_texts()]


def test_slider_and_layer_change_the_maps(browser: Any, folder: Path) -> None:
    page, problems = opened(browser, folder / "one/report.html", 1300)
    report = json.loads((folder / "one/report.json").read_text())
    tokens = len(report["position"]["maps"][0][0][0])
    everywhere = maps(page)
    assert len(everywhere) == 4  # three pictures and their mean
    assert means(page)[1] == pytest.approx(report["pairs"]["per_picture"][1] / tokens / 6, abs=0.006)
    page.locator("#moment").fill("2")
    assert page.locator("#time").inner_text() == "t = 0.667"
    at_a_time = maps(page)
    assert all(one != other for one, other in zip(everywhere, at_a_time, strict=True))
    page.locator("#layer").select_option("1")
    assert maps(page) != at_a_time
    for picture in range(3):
        expected = sum(report["position"]["maps"][1][1][picture]) / tokens
        assert means(page)[picture] == pytest.approx(expected, abs=0.006)
    assert page.locator("article.card .main-svg").count() >= 12
    assert "<b>cat</b>, seed 2" in page.locator("figcaption").nth(2).inner_text()
    assert problems == []
    page.close()


def test_two_runs_on_a_narrow_screen(browser: Any, folder: Path) -> None:
    page, problems = opened(browser, folder / "two/report.html", 420)
    assert len(maps(page)) == 4 + 3
    assert page.locator("#moment").get_attribute("max") == "5"
    page.locator("#moment").fill("5")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert problems == []
    page.close()


def test_without_maps_a_layer_can_be_chosen(browser: Any, folder: Path) -> None:
    page, problems = opened(browser, folder / "layers/report.html", 800)
    assert maps(page) == []
    assert not page.locator("#moment").is_visible()
    report = json.loads((folder / "layers/report.json").read_text())
    for layer in (0, 1):
        page.locator("#layer").select_option(str(layer))
        shown = page.evaluate(DRAWN_SIMILARITY)
        expected = report["layer"]["similarity"]["router"][layer]
        assert shown == [[None if i == j else expected[i][j] for j in range(4)] for i in range(4)]
    assert problems == []
    page.close()


def test_prompts_without_a_word_have_a_page(browser: Any, folder: Path) -> None:
    report = json.loads((folder / "signs/report.json").read_text())
    assert report["caption"]["words"]["names"] == []
    page, problems = opened(browser, folder / "signs/report.html", 800)
    titles = page.locator("article h2").all_inner_texts()
    assert "Which prompts an expert serves" in titles
    assert "Which words an expert serves" not in titles
    assert problems == []
    page.close()


@pytest.mark.parametrize("name", ["one", "two"])
def test_plots_stay_in_their_cards(browser: Any, folder: Path, name: str) -> None:
    page, _ = opened(browser, folder / name / "report.html", 1300)
    measure = "[...document.querySelectorAll('.plot')].map((plot) => [plot.querySelector('.main-svg'), plot])"
    widths = page.evaluate(f"{measure}.map(([svg, plot]) => [svg.getBoundingClientRect().width, plot.clientWidth])")
    assert len(widths) >= 10
    assert [pair for pair in widths if pair[0] > pair[1]] == []
    page.close()
