"""What pages name exists: links, files, symbols such as `leandit.moe.select`, config keys such as `train.steps`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leandit.config.fields import find
from leandit.config.plugins import GROUP
from leandit.errors import LeanDiTError
from leandit.run import RunConfig

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_CODE = re.compile(r"`([^`\n]+)`")
_SYMBOL = re.compile(r"leandit(\.\w+)+")
_KEY = re.compile(rf"({'|'.join(RunConfig.model_fields)})(\.[a-z0-9_]+)+(?==|$)")
_FILE = re.compile(r"(src|tests|examples|scripts|docs)/[\w./-]+")


def code_spans(page: Path) -> Iterator[str]:
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from _CODE.findall(prose)


def symbol_exists(name: str) -> bool:
    if name == GROUP:  # of entry points
        return True
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            if not hasattr(found, part):
                return part in getattr(found, "__annotations__", {})
            found = getattr(found, part)
        return True
    return False


def key_exists(key: str) -> bool:
    try:
        return bool(find(RunConfig, key))
    except LeanDiTError:
        return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    links = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    for span in code_spans(page):
        if (match := _SYMBOL.match(span)) and not symbol_exists(match[0]):
            missing.append(span)
        if (match := _KEY.match(span)) and not key_exists(match[0]):
            missing.append(span)
        if (match := _FILE.fullmatch(span)) and not (ROOT / match[0]).exists():
            missing.append(span)
    assert not missing


def test_the_checks_can_fail() -> None:
    assert symbol_exists("leandit.moe.strategies.select_mask")
    assert symbol_exists("leandit.moe.RouterOutput.cutoff")
    assert not symbol_exists("leandit.moe.strategies.nothing")
    assert key_exists("model.moe.k")
    assert key_exists("sampling.sampler.eta")
    assert not key_exists("model.moe.kk")
