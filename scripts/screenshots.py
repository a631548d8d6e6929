"""Make the documentation's pictures of the page and of the report: page.png, page-narrow.png and report.png.

    leandit probe runs/quickstart
    python scripts/screenshots.py runs/quickstart --label cat
    python scripts/screenshots.py runs/emoji --prompt "red apple, noto emoji" --out elsewhere

Starts `leandit serve` for the run, draws in Chromium through playwright, and ends it again. The report is the one that
`leandit probe` left in the run's folder, or --report; without one, report.png is not made. Needs playwright and a
Chromium that is on the machine.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

DESTINATION = Path(__file__).parents[1] / "docs/images"
SCREENS = {"page.png": (1280, 900), "page-narrow.png": (420, 900)}
WAIT = 120_000


def main() -> None:
    """Take the pictures that the command line asks for."""
    options = parse()
    command = [sys.executable, "-m", "leandit", "serve", str(options.run), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if "http://" not in line:
            raise SystemExit("leandit serve did not start; its message is above")
        take(options, line.split(" on ")[1].strip())
    finally:
        server.terminate()
        server.wait()


def parse() -> argparse.Namespace:
    """Return the options, with the report's place filled in."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="the run to draw from")
    parser.add_argument("--label", help="class by name, for a class model")
    parser.add_argument("--prompt", help="for a text model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="a report.html; default: that in RUN/probe")
    parser.add_argument("--out", type=Path, default=DESTINATION)
    options = parser.parse_args()
    options.report = options.report or options.run / "probe" / "report.html"
    return options


def take(options: argparse.Namespace, url: str) -> None:
    """Take the pictures with one browser."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("there is no chromium on this machine; on Debian: apt-get install chromium")
    options.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (width, height) in SCREENS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(WAIT)
            draw(page, url, options)
            page.screenshot(path=options.out / name, full_page=True)
            print(options.out / name)
        if options.report.exists():
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.goto(options.report.resolve().as_uri())
            page.wait_for_selector(".js-plotly-plot", timeout=WAIT)
            page.wait_for_timeout(2000)
            page.screenshot(path=options.out / "report.png")
            print(options.out / "report.png")
        else:
            print(f"{options.report}: there is no report; make one with: leandit probe {options.run}")


def draw(page: Any, url: str, options: argparse.Namespace) -> None:
    """Fill the page in, draw, and wait until plots and picture are there."""
    page.goto(url)
    page.wait_for_selector("#ld-draw")
    if options.prompt:
        page.fill("#ld-prompt textarea", options.prompt)
    if options.label:
        page.click("#ld-class input")
        page.get_by_role("option", name=options.label, exact=True).click()
    page.fill("#ld-seed input", str(options.seed))
    page.click("#ld-draw")
    page.wait_for_selector("#ld-view input[type=range]")
    page.wait_for_selector("#ld-load .js-plotly-plot")
    page.wait_for_timeout(2000)


if __name__ == "__main__":
    main()
