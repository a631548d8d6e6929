"""Kinds of one's own on the command line: imported from a file or a module, or named by an installed package."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leandit.cli import main
from leandit.config import plugins
from leandit.data import SOURCES
from leandit.errors import LeanDiTError
from leandit.presets import run_config

pytestmark = pytest.mark.usefixtures("no_figures")

STRIPES = '''
from typing import Literal
import numpy as np
from leandit.data import SOURCES, Example, SourceConfig

@SOURCES.register
class StripesConfig(SourceConfig):
    type: Literal["stripes"] = "stripes"
    count: int = 12
    """Number of pictures."""

    def build(self):
        return Stripes(self.count)

class Stripes:
    class_names = ("heart", "cat")

    def __init__(self, count):
        self.count, self.fingerprint = count, f"stripes {count}"

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        picture = np.zeros((32, 32, 3), np.uint8)
        picture[:: 2 + index] = 255
        return Example(picture, index % 2, (), f"stripes {index}")
'''
OWN = ['data={"source":{"type":"stripes"},"image_size":32}', "train.steps=2", "train.checkpoint_every=1"]


@pytest.fixture
def stripes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that registers a data source; it is forgotten afterwards."""
    path = tmp_path / "stripes_of_mine.py"
    path.write_text(STRIPES)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield path
    sys.modules.pop("stripes_of_mine", None)
    SOURCES.kinds.pop("stripes", None)
    plugins.load_plugins.cache_clear()


def test_a_run_of_ones_own_source(
    stripes: Path, tmp_path: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    message = fails("train", "tiny", "--out", out, *OWN)
    assert "data.source: type = 'stripes' is not one of" in message
    assert "--import FILE" in message
    assert main(["train", "tiny", "--out", out, *OWN, "--import", str(stripes)]) == 0
    assert main(["resume", out, "train.steps=3", "--import", str(stripes)]) == 0
    capsys.readouterr()
    assert main(["config", "--import", str(stripes), "data.source.count"]) == 0
    assert "Number of pictures." in capsys.readouterr().out
    del SOURCES.kinds["stripes"], sys.modules["stripes_of_mine"]
    assert main(["runs", str(tmp_path)]) == 0  # listed with the way out
    assert "--import FILE" in capsys.readouterr().out


def test_an_installed_package_names_its_module(stripes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = stripes.parent / "striped-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: striped\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[leandit.kinds]\nstripes = stripes_of_mine\n")
    monkeypatch.syspath_prepend(str(stripes.parent))
    plugins.load_plugins.cache_clear()
    assert run_config("tiny", OWN).data.source.type == "stripes"


def test_a_package_that_fails_is_named(stripes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stripes.write_text("import no_such_module_at_all")
    test = test_an_installed_package_names_its_module
    with pytest.raises(LeanDiTError, match=r"stripes_of_mine .of the package striped.: its import failed.*no_such_mod"):
        test(stripes, monkeypatch)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("missing.py", None, "no such file"),
        ("no-name.py", "", "rename the file"),
        ("json.py", "", "there is another module json; rename the file"),
        ("broken_kinds.py", "1 / 0", "its import failed: ZeroDivisionError: division by zero"),
        ("no_such_module_of_mine", None, "its import failed: ModuleNotFoundError"),
    ],
)
def test_imports_that_fail(tmp_path: Path, fails: Callable[..., str], name: str, text: str | None, words: str) -> None:
    path = str(tmp_path / name) if name.endswith(".py") else name
    if text is not None:
        Path(path).write_text(text)
    assert words in fails("runs", str(tmp_path), "--import", path)
