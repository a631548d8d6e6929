"""Every code block of the README and the guides runs: python is executed, bash goes through the command line.

python  executed in order, one namespace per page
bash    `leandit` lines run in this process, with training made small (see SMALL); tools like make are passed over
sh      `leandit` lines are parsed and their config validated, for what needs data or hours that tests lack
toml    written to the file that its first line names, as in "# mine.toml"
text    left alone
"""

from __future__ import annotations

import gzip
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leandit.autoencoder import CODECS
from leandit.cli.main import main, parse
from leandit.data import SOURCES
from leandit.models import BACKBONES
from leandit.moe import ROUTERS
from leandit.presets import PRESETS, run_config
from leandit.run import TASKS

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "bash", "sh", "toml", "text"}
OTHER_TOOLS = {"make", "pip", "git", "apt-get", "python", "tensorboard"}
# Later overrides win, so whatever a page trains is trained this small.
SMALL = [
    *("model.dim=32", "model.depth=2", "model.heads=2", "model.patch_size=8"),
    *("train.steps=2", "train.batch_size=8", "sampling.sampler.steps=2", "sampling.grid=5"),
]
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block and the line that its code starts at."""

    language: str
    code: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        yield Block(match[1], match[2], text.count("\n", 0, match.start()) + 2)


def commands(block: Block) -> Iterator[list[str]]:
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] not in OTHER_TOOLS:
            assert words[0] == "leandit", f"line {block.line}: {words[0]!r} is no command that pages use"
            yield words[1:]


def make_small(words: list[str]) -> list[str]:
    if words[0] != "train" or "--dry-run" in words:
        return words
    return [*words, *SMALL]


def run_block(block: Block, namespace: dict[str, object], page: Path) -> None:
    if block.language == "python":
        exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec", dont_inherit=True), namespace)
    elif block.language == "bash":
        for words in commands(block):
            assert main(make_small(words)) == 0, f"{page.name}, line {block.line}: leandit {' '.join(words)} failed"
    elif block.language == "sh":
        for words in commands(block):
            options = parse(words)
            if words[0] == "train" and options.preset in PRESETS:
                run_config(options.preset, options.overrides)
    elif block.language == "toml":
        name = block.code.splitlines()[0].removeprefix("# ")
        Path(name).write_text(block.code)


def make_pictures(folder: Path) -> None:
    """What pages about own pictures find in the current folder."""
    rng = np.random.default_rng(0)
    for name in ("photos/cat/1.png", "photos/cat/2.jpg", "photos/dog/1.png", "photos/dog/2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    (folder / "captioned").mkdir()
    for number in (1, 2):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"captioned/{number}.png")
    (folder / "captioned/metadata.jsonl").write_text(
        '{"file_name": "1.png", "text": "a red square", "label": "square"}\n'
        '{"file_name": "2.png", "text": "a blue disc", "label": "disc"}\n'
    )
    pixels, labels = rng.integers(0, 256, (6, 28, 28), dtype=np.uint8), np.arange(6, dtype=np.uint8) % 3
    with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(bytes([0, 0, 8, 3]) + np.array(pixels.shape, ">u4").tobytes() + pixels.tobytes())
    with gzip.open(folder / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(bytes([0, 0, 8, 1]) + np.array(labels.shape, ">u4").tobytes() + labels.tobytes())


def draw_nothing(*arguments: object) -> None:
    """Stand in for a figure, whose path comes last: drawing takes ten times as long as such a small training."""
    Path(str(arguments[-1])).touch()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if page.name != "first-run.md":
        monkeypatch.setattr("leandit.pictures.plot_curves", draw_nothing)
        monkeypatch.setattr("leandit.pictures.plot_compute", draw_nothing)
        monkeypatch.setattr("leandit.probing.write.plot_compute", draw_nothing)
        monkeypatch.setattr("leandit.probing.write.plot_routing", draw_nothing)
    for registry in (BACKBONES, CODECS, ROUTERS, SOURCES, TASKS):  # what a page registers ends with it
        monkeypatch.setattr(registry, "kinds", dict(registry.kinds))
    make_pictures(tmp_path)
    namespace: dict[str, object] = {"__name__": "__page__"}
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page.name}, line {block.line}: language {block.language!r}"
        run_block(block, namespace, page)


def test_blocks_are_found_with_their_lines(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nx = 1\n```\n\ntext\n\n```bash\nleandit train tiny \\\n    --out a\n```\n")
    first, second = blocks(page)
    assert (first.language, first.code, first.line) == ("python", "x = 1\n", 4)
    assert list(commands(second)) == [["train", "tiny", "--out", "a"]]


def test_the_layer_trains_in_a_model_of_your_own() -> None:
    script = ROOT / "examples" / "moe_in_your_model.py"
    assert len(script.read_text().splitlines()) <= 100
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), "--steps", "51"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    first, last = re.findall(r"loss ([\d.]+)", result.stdout)
    assert float(last) < float(first) / 2
    assert re.search(r"[\d.]+ experts a token", result.stdout)


def test_the_minimal_example_trains_and_draws(tmp_path: Path) -> None:
    """It stands on its own, so it runs in its own process, as its first lines say."""
    script = ROOT / "examples" / "minimal_train.py"
    assert len(script.read_text().splitlines()) <= 150
    out = tmp_path / "samples.png"
    command = [sys.executable, str(script), "--steps", "3", "--batch-size", "8", "--out", str(out)]
    # One thread: two that wait for a busy core take ten times as long.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    with Image.open(out) as picture:
        assert picture.width > picture.height > 100
        assert len(picture.getcolors(1 << 20) or []) > 100
