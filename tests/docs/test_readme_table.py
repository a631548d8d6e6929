"""The README's figures of speed are those of the results file that it names."""

from __future__ import annotations

import re
from pathlib import Path

from readme_table import replaced, section

ROOT = Path(__file__).parent.parent.parent


def test_speed_is_what_the_results_file_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    name = re.search(r"\[all results\]\((benchmarks/results/[\w.-]+\.md)\)", readme)
    assert name is not None
    assert replaced(readme, section(ROOT / name[1])) == readme
