"""The README's figures of speed are those of the results file that it names."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_speed_is_what_the_results_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sys.modules.pop("contest", None)
    from readme_table import replaced, section

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    name = re.search(r"\[all results\]\((benchmarks/results/[\w.-]+\.md)\)", readme)
    assert name is not None
    assert replaced(readme, section(ROOT / name[1])) == readme
