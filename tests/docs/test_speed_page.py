"""The figures of speed on their page are those of the results file that it names."""

from __future__ import annotations

import re
from pathlib import Path

from speed_page import replaced, section

ROOT = Path(__file__).parent.parent.parent


def test_speed_is_what_the_results_file_says() -> None:
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    name = re.search(r"\[all results\]\(\.\./(benchmarks/results/[\w.-]+\.md)\)", page)
    assert name is not None
    assert replaced(page, section(ROOT / name[1])) == page


def test_the_readme_repeats_figures_of_the_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "docs/speed.md").read_text("utf-8").splitlines()]
    [layer] = [row for row in rows if row[:3] == ["768", "4-in-32", "float32"]]
    models = {(row[0], row[2]): row[3] for row in rows if row[1:2] == ["fp32"]}
    peer = "DiT-S/2 : diffusers'"
    assert f"same activated FLOPs: {layer[4]} (Mixtral's: {layer[6]})" in readme
    assert f"1.08 times its FLOPs: {models['RaceDiT-S/2-4in32 : DiT-S/2', 'training']}" in readme
    assert f"diffusers' DiT: {models[peer, 'training']}" in readme
    assert len(readme.splitlines()) < 120
