"""Any text on any terminal: no control characters, no encoding errors, labels that can be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from leandit.cli import main
from leandit.errors import LeanDiTError, printable
from leandit.sampling.grid import draw_grid
from leandit.sampling.lettering import drawable

ESCAPE = "\x1b[31mred\x07\x9b2J\u202e"


@given(st.text())
def test_whatever_is_printed_controls_no_terminal(text: str) -> None:
    shown = printable(text)
    assert all(character == "\n" or character.isprintable() or character in "\u200c\u200d" for character in shown)
    assert printable(shown) == shown
    assert str(LeanDiTError(text)) == shown
    if text.isprintable():
        assert shown == text


def test_characters_are_named_by_their_codes() -> None:
    assert printable("a\x1b[0m\r\t\U000e0001\udce9é猫\n") == "a\\u001b[0m\\u000d\\u0009\\U000e0001\\udce9é猫\n"
    assert str(LeanDiTError("two\nlines")) == "two\nlines"


@pytest.mark.parametrize("arguments", [["train", f"--{ESCAPE}"], [ESCAPE], ["sample", "x", "--weights", "y", ESCAPE]])
def test_unknown_arguments_are_repeated_without_control(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    found = capsys.readouterr().err
    assert printable(found) == found


@pytest.mark.parametrize("arguments", [["train", ESCAPE], ["train", "tiny", f"{ESCAPE}=1"], ["sample", ESCAPE]])
def test_mistakes_are_repeated_without_control(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    found = capsys.readouterr().err
    assert "u001b" in found or "x1b" in found
    assert printable(found) == found


def test_names_of_files_and_classes_are_shown_by_their_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / "a.png")
    (folder / "cat" / f"{ESCAPE}.png").write_bytes(b"")
    train = ["train", "tiny", "data.source.type=class_folder", f"data.source.path={folder}", "--dry-run"]
    assert main(train) == 2
    assert "\\u001b[31mred\\u0007\\u009b2J\\u202e.png: empty file" in capsys.readouterr().err
    (folder / "cat" / f"{ESCAPE}.png").unlink()
    (folder / "dog").rename(folder / ESCAPE)
    assert main(train) == 2
    found = capsys.readouterr().err
    assert "has characters that cannot be printed" in found
    assert printable(found) == found


@pytest.mark.parametrize("settings", [{"LANG": "C", "LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_a_terminal_of_any_encoding(tmp_path: Path, settings: dict[str, str]) -> None:
    folder = tmp_path / "größe 猫"
    (folder / "é").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "é" / "a.png")
    (folder / "é" / "ü.png").write_bytes(b"")
    command = [sys.executable, "-m", "leandit", "train", "tiny", "data.source.type=class_folder", "--dry-run"]
    done = subprocess.run(
        [*command, f"data.source.path={folder}"], capture_output=True, env={**os.environ, **settings}, check=False
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"empty file; replace or remove it" in done.stderr


def ink(name: str) -> np.ndarray:
    return np.asarray(draw_grid([(name, torch.zeros(1, 8, 8, 3, dtype=torch.uint8))]).convert("L"))


def test_labels_beyond_ascii_are_drawn_with_their_own_letters() -> None:
    assert drawable("cat") == "cat"
    assert drawable("Größe, Ωμέγα, кошка") == "Größe, Ωμέγα, кошка"
    assert drawable("猫 cat") == "U+732B  cat"
    assert drawable("a\x1b") == "a\\u001b"
    pictures = [ink(name) for name in ("кошка", "собак", "猫猫", "犬犬")]
    for one in range(4):
        for other in range(one):
            assert pictures[one].shape != pictures[other].shape or (pictures[one] != pictures[other]).any()
