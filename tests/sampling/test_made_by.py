"""Pictures carry what made them, in their names and in the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leandit.cli import main
from leandit.cli.sample import _prefix
from leandit.sampling import read_made_by, save_png


def test_a_picture_can_be_drawn_again_from_what_is_in_it(tiny_run: Path, tmp_path: Path) -> None:
    first = ["sample", str(tiny_run), "--labels", "cat,heart", "--seeds", "3,5", "--steps", "2", "--guidance", "1.5"]
    assert main([*first, "--compute", "0.5", "--out", str(tmp_path / "a")]) == 0
    path = tmp_path / "a/label-0001-cat_seed-000005.png"
    made_by = read_made_by(path)
    assert made_by is not None
    facts = json.loads((tmp_path / "a/drawing.json").read_text())
    assert {name: made_by[name] for name in ("run", "step", "weights_sha256", "compute")} == {
        name: facts[name] for name in ("run", "step", "weights_sha256", "compute")
    }
    sampling = made_by["sampling"]
    words = ["--labels", made_by["shows"], "--seeds", str(made_by["seed"]), "--compute", str(made_by["compute"])]
    words += ["--steps", str(sampling["sampler"]["steps"]), "--guidance", str(sampling["guidance"]["scale"])]
    assert main(["sample", str(tiny_run), *words, "--out", str(tmp_path / "b")]) == 0
    with Image.open(path) as one, Image.open(tmp_path / "b" / path.name) as other:
        assert one.text["Description"] == "cat"
        assert one.text["Software"].startswith("LeanDiT ")
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


def test_any_prompt_survives_and_other_pictures_have_nothing(tmp_path: Path) -> None:
    image = Image.new("L", (2, 2))
    for number, prompt in enumerate(('\u732b, \U0001f431 & "quotes"\nsecond line', "a" * 10_000, "")):
        save_png(image, tmp_path / f"{number}.png", {"shows": prompt, "seed": number})
        assert read_made_by(tmp_path / f"{number}.png") == {"shows": prompt, "seed": number}
    save_png(image, tmp_path / "plain.png")
    image.save(tmp_path / "foreign.jpg")
    assert read_made_by(tmp_path / "plain.png") is None
    assert read_made_by(tmp_path / "foreign.jpg") is None


@pytest.mark.parametrize(
    ("shows", "prefix"),
    [
        ("Red apple, noto emoji", "prompt-0007-red-apple-noto-emoji_"),
        ("../../etc/passwd", "prompt-0007-etc-passwd_"),
        ("\u732b", "prompt-0007-\u732b_"),
        ("!?", "prompt-0007_"),
        ("word " * 30, "prompt-0007-word-word-word-word-word-word-word-word_"),
        ("\U00020000" * 300, f"prompt-0007-{chr(0x20000) * 40}_"),
    ],
)
def test_names_say_the_prompt_and_fit_on_any_disk(shows: str, prefix: str) -> None:
    made = _prefix(shows, {shows: 7}, shows)
    assert made == prefix
    assert len(f"{made}seed-000000.png".encode()) < 255
    assert "/" not in made
