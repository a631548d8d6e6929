"""The page in a real browser: type, draw, move the sliders, on a wide and on a narrow screen."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from page_server import Server

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

WAIT = 90_000
SLIDER = "#ld-view input[type=range]"
# Another drawing is finished: other frames than the old ones, and the slider through them.
CHANGED = (
    "old => getComputedStyle(document.querySelector('.ld-{} .ld-strip')).backgroundImage !== old"
    " && document.querySelector('#ld-view input')"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page, every address that it asked for, and every error in it."""

    def __init__(self, browser: Any, url: str, width: int, height: int) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(WAIT)
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.missing: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "response", lambda answer: self.missing.append(answer.url) if answer.status in (403, 404, 405) else None
        )
        self.page.goto(url)
        self.page.wait_for_selector("#ld-draw")

    def draw(self) -> None:
        self.page.click("#ld-draw")
        self.page.wait_for_selector(SLIDER)
        self.page.wait_for_selector("#ld-load .js-plotly-plot")

    def strip(self, name: str) -> str:
        """The frames of the picture or of the map, as an address."""
        return str(self.page.eval_on_selector(f".ld-{name} .ld-strip", "e => getComputedStyle(e).backgroundImage"))

    def pixels(self, name: str) -> bytes:
        """What the screen shows of the picture or of the map."""
        return bytes(self.page.locator(f".ld-{name} .ld-strip").screenshot())

    def choose_time(self, frame: int) -> None:
        script = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})) }"
        self.page.eval_on_selector(SLIDER, script, frame)


def settings(visit: Visit, steps: int) -> None:
    visit.page.click("#ld-sampler button")
    visit.page.fill("#ld-steps input[type=number]", str(steps))
    visit.page.keyboard.press("Tab")


@pytest.fixture(scope="module")
def visit(browser: Any, server: Server) -> Visit:
    """A page on which a picture was drawn."""
    visit = Visit(browser, server.url, 1400, 1000)
    visit.page.fill("#ld-seed input", "11")
    settings(visit, 3)
    visit.draw()
    return visit


def test_the_slider_over_time_changes_picture_and_map(visit: Visit) -> None:
    slider = visit.page.locator(SLIDER)
    assert slider.get_attribute("max") == "5"  # three steps of Heun's are five evaluations, and the picture
    finished = visit.pixels("picture"), visit.pixels("map")
    assert "finished" in visit.page.inner_text("#ld-view output")
    visit.choose_time(0)
    noise = visit.pixels("picture"), visit.pixels("map")
    assert "t = 1.00" in visit.page.inner_text("#ld-view output")
    assert finished[0] != noise[0]
    assert finished[1] != noise[1]
    visit.choose_time(5)
    assert visit.pixels("picture") == finished[0]


def test_pictures_are_enlarged_without_smoothing(visit: Visit) -> None:
    style = "e => [getComputedStyle(e).imageRendering, e.clientWidth]"
    rendering, width = visit.page.eval_on_selector(".ld-picture .ld-strip", style)
    assert rendering == "pixelated"
    assert width > 250  # of a picture of 32 pixels


def test_the_budget_changes_the_map(visit: Visit) -> None:
    before = visit.strip("map")
    visit.page.locator("#ld-budget input[type=range]").click(position={"x": 2, "y": 5})
    visit.page.wait_for_function(CHANGED.format("map"), arg=before)
    assert visit.page.input_value("#ld-budget input[type=number]") == "0.5"
    assert visit.strip("map") != before


def test_a_seed_out_of_range_is_told_on_the_page(visit: Visit) -> None:
    visit.page.fill("#ld-seed input", "-5")
    before = visit.strip("picture")
    visit.page.click("#ld-draw")
    visit.page.wait_for_selector("text=/out of range|greater|minimum/i")
    assert visit.strip("picture") == before
    visit.page.fill("#ld-seed input", "12")
    visit.page.click("#ld-draw")
    visit.page.wait_for_function(CHANGED.format("picture"), arg=before)


def test_nothing_is_asked_of_anybody_else(visit: Visit, server: Server) -> None:
    assert len(visit.asked) > 10
    assert [url for url in visit.asked if not url.startswith((server.url, "data:", "blob:"))] == []
    assert visit.errors == []
    assert visit.missing == []


def test_another_run_is_chosen_and_a_prompt_typed(browser: Any, server: Server) -> None:
    visit = Visit(browser, server.url, 1000, 900)
    page = visit.page
    assert not page.is_visible("#ld-prompt textarea")
    assert page.is_visible("#ld-class input")
    page.click("#ld-run input")
    page.get_by_role("option", name="words", exact=True).click()
    page.wait_for_selector("#ld-prompt textarea")
    page.wait_for_selector("#ld-class", state="hidden")
    assert page.locator(".ld-chips button").all_inner_texts() == ["red apple", "<b>tiger</b> & emoji"]
    page.locator(".ld-chips button").last.click()
    assert page.input_value("#ld-prompt textarea") == "<b>tiger</b> & emoji"
    page.fill("#ld-prompt textarea", "green apple")
    page.click("#ld-draw")
    page.wait_for_selector(SLIDER)
    # A dense model has no experts: neither a map nor a budget.
    assert page.locator(".ld-map").count() == 0
    assert page.is_disabled("#ld-budget input[type=range]")
    first = visit.strip("picture")
    page.fill("#ld-prompt textarea", "red tiger")
    page.press("#ld-prompt textarea", "Shift+Enter")
    page.wait_for_function(CHANGED.format("picture"), arg=first)
    assert visit.errors == []


def test_a_narrow_screen_is_not_left_sideways(browser: Any, server: Server) -> None:
    visit = Visit(browser, server.url, 420, 900)
    visit.draw()
    scroll, width = visit.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert (scroll, width) == (420, 420)
    for name in ("#ld-draw", ".ld-picture", ".ld-map", "#ld-load", "#ld-over-time", SLIDER):
        box = visit.page.locator(name).bounding_box()
        assert box["width"] > 100
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 420


def start_long(browser: Any, server: Server) -> Visit:
    """A page on which a drawing of many steps is under way: it waits early in 399 evaluations.

    The first evaluations may be those of a drawing that a test before left, so they go on until this one shows.
    """
    visit = Visit(browser, server.url, 1000, 900)
    settings(visit, 200)
    visit.page.click("#ld-draw")
    server.evaluations = 0
    server.evaluate(5)
    evaluate_until(visit, server, lambda: visit.page.locator("text=/drawing: \\d+ of 399/").count())
    return visit


def label(visit: Visit) -> str:
    return str(visit.page.inner_text("#ld-view output"))


def evaluate_until(visit: Visit, server: Server, done: Callable[[], object]) -> None:
    """Let the server go on, evaluation by evaluation, until something came about: before 399, which end a drawing."""
    while not done():
        assert server.evaluations < 398
        server.evaluate()
        visit.page.wait_for_timeout(200)


def test_stop_ends_the_drawing(browser: Any, stepwise_server: Server) -> None:
    visit = start_long(browser, stepwise_server)
    answered: list[str] = []
    visit.page.on("response", lambda answer: answered.append(answer.url))
    visit.page.click("#ld-stop")
    # A drawing is left between two frames.
    evaluate_until(visit, stepwise_server, lambda: any(url.endswith("/cancel") for url in answered))
    visit.page.wait_for_timeout(500)  # for frames that were on their way
    stopped = label(visit)
    stepwise_server.evaluate(3)
    visit.page.wait_for_timeout(1000)
    assert label(visit) == stopped
    assert "of 399" in stopped
    visit.page.fill("#ld-steps input[type=number]", "2")
    visit.page.keyboard.press("Tab")
    visit.page.click("#ld-draw")
    # A run makes one drawing after another, so this one comes only if the other is over.
    evaluate_until(visit, stepwise_server, lambda: visit.page.locator(SLIDER).count())
    visit.page.wait_for_selector("#ld-load .js-plotly-plot")
    assert "finished" in label(visit)
    assert visit.errors == []


def test_another_run_ends_the_drawing(browser: Any, stepwise_server: Server) -> None:
    visit = start_long(browser, stepwise_server)
    visit.page.click("#ld-run input")
    visit.page.get_by_role("option", name="words", exact=True).click()
    visit.page.wait_for_selector("#ld-prompt textarea")
    visit.page.wait_for_selector("text=Nothing drawn yet")
    stepwise_server.evaluate(20)
    visit.page.wait_for_timeout(1500)
    assert label(visit) == "Nothing drawn yet"
    assert visit.errors == []
