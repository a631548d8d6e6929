"""What the commands print and write when all is well."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leandit.cli import main
from leandit.presets import MODELS, run_config

WITHOUT_TORCH = """
import sys
import leandit
assert leandit.__version__
from leandit.cli import main
for command in ([], ["train"], ["sample"], ["models"]):
    try:
        main([*command, "--help"])
    except SystemExit as end:
        assert end.code == 0
heavy = {"torch", "numpy", "pydantic", "matplotlib", "rich", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_and_the_bare_import_load_no_torch() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for word in ("train", "sample", "models", "--resume", "--dry-run", "--seeds", "--npz", "--json"):
        assert word in result.stdout


def test_dry_run_prints_config_and_cost_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "tiny", "train.steps=7", "--dry-run"]) == 0
    costs = capsys.readouterr().out
    model = run_config("tiny").model.complete(input_size=32, channels=3, num_classes=2).build()
    parameters = sum(p.numel() for p in model.parameters())
    assert f"parameters      {parameters:,};" in costs
    for word in ("7 steps of 8", "FLOPs per step", "memory", "GiB", "2 classes", "measured on 8 of 8", "time in all"):
        assert word in costs
    assert len(costs.splitlines()) < 16
    assert main(["train", "tiny", "train.steps=7", "--dry-run", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["config"]["train"]["steps"] == 7
    assert (tree["config"]["model"]["input_size"], tree["config"]["model"]["num_classes"]) == (32, 2)
    assert tree["cost"]["parameters"] == parameters
    assert tree["cost"]["step_seconds"] > 0
    assert tree["missing"] == {}
    assert main(["train", "tiny", "--json"]) == 2
    assert "--json belongs to --dry-run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_models_as_json_and_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    fields = {"name", "total", "activated", "flops", "paper_total", "paper_activated"}
    assert all(fields <= card.keys() for card in cards)
    assert [card["name"] for card in cards] == list(MODELS)
    race = next(card for card in cards if card["name"] == "RaceDiT-XL/2-4in32")
    assert race["paper_total"] == 2.788e9
    assert race["total"] == pytest.approx(2.788e9, rel=5e-3)
    assert main(["models"]) == 0
    table = capsys.readouterr().out
    assert "RaceDiT-XL/2-4in32" in table
    assert "2.788B" in table
    rows = {line.split("\u2502")[1].strip(): line for line in table.splitlines() if line.startswith("\u2502")}
    for name, figures in {
        "EC-DiT-XXL-8E": ("4.872B", "4.870B", "+0.05 %", "2.721B", "2.710B", "+0.39 %"),
        "EC-DiT-3XL-16E [2]": ("17.919B", "17.870B", "+0.27 %", "5.433B", "5.180B", "+4.89 %"),
        "DiT-Air/B": ("0.320B", "0.321B", "-0.33 %", "0.320B", "0.321B", "-0.33 %"),
        "RaceDiT-B/2-1in16 [1] *": ("0.977B", "0.978B", "-0.13 %", "0.127B"),
    }.items():
        shown = [cell.strip() for cell in rows[name].split("\u2502") if cell.strip()]
        assert all(figure in shown for figure in figures), shown
    assert "A misprint: rows with experts of the same total size have 0.977B, not 0.978B." in table
    for known in cards:
        assert (known["residual_total"] is None) == (known["paper_total"] is None)


def test_train_names_its_folder_and_its_pictures_and_does_not_reuse_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("runs/tiny", "runs/tiny-2")):
        assert main(["train", "tiny", "train.steps=2", f"seed={number}"]) == 0
        output = capsys.readouterr().out
        assert f"Done: {name}" in output
        assert f"leandit sample {name}" in output
        for picture in ("samples.png", "loss.png", "compute.png"):
            assert f"{name}/{picture}: " in output
            with Image.open(tmp_path / name / picture) as image:
                image.load()
    # Without --out, the newest run is the one that goes on.
    assert main(["train", "tiny", "train.steps=3", "seed=1", "--resume"]) == 0
    assert (tmp_path / "runs/tiny-2/checkpoints/step-00000003").is_dir()
    assert not (tmp_path / "runs/tiny/checkpoints/step-00000003").exists()


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_restates_a_preset_in_part(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    if suffix == ".toml":
        path.write_text('preset = "tiny"\nname = "mine"\n[train]\nsteps = 3\n[optimizer]\ntype = "muon"\n')
    else:
        tree = {"preset": "tiny", "name": "mine", "train": {"steps": 3}, "optimizer": {"type": "muon"}}
        path.write_text(json.dumps(tree))
    assert main(["train", str(path), "train.batch_size=4", "--dry-run", "--json"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["name"], config["train"]["steps"], config["train"]["batch_size"]) == ("mine", 3, 4)
    assert config["optimizer"]["type"] == "muon"
    assert "beta1" not in config["optimizer"]


def test_the_config_that_a_run_leaves_behind_trains_it_again(tmp_path: Path, tiny_run: Path) -> None:
    copy = tmp_path / "config.json"
    shutil.copy(tiny_run / "config.json", copy)
    assert main(["train", str(copy), "train.steps=1", "--out", str(tmp_path / "again")]) == 0


def test_sample_writes_a_file_per_picture_a_grid_and_plain_arrays(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["sample", str(tiny_run), "--labels", "cat, 0", "--seeds", "3,7-8", "--steps", "2", "--npz"]
    assert main([*command, "--out", str(out), "--batch-size", "4"]) == 0
    assert f"6 pictures and grid.png in {out}" in capsys.readouterr().out
    names = [f"label-{label}_seed-{seed:06d}.png" for label in ("0001-cat", "0000-heart") for seed in (3, 7, 8)]
    assert {path.name for path in out.iterdir()} == {*names, "grid.png", "samples.npz", "drawing.json"}
    with np.load(out / "samples.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"images", "labels", "seeds"}
        assert arrays["labels"].tolist() == [1, 1, 1, 0, 0, 0]
        assert arrays["seeds"].tolist() == [3, 7, 8, 3, 7, 8]
        assert arrays["images"].shape == (6, 32, 32, 3)
        for name, image in zip(names, arrays["images"], strict=True):
            with Image.open(out / name) as picture:
                np.testing.assert_array_equal(np.asarray(picture), image)
    with Image.open(out / "grid.png") as grid:
        assert grid.size[0] > 3 * 64
    # The same seed and label by itself is the same picture, to the rounding of one step of 255.
    alone = tmp_path / "alone"
    assert main(["sample", str(tiny_run), "--labels", "1", "--seeds", "7", "--steps", "2", "--out", str(alone)]) == 0
    with Image.open(out / names[1]) as a, Image.open(alone / names[1]) as b:
        assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1


def test_sample_by_default_goes_into_the_runs_folder_and_never_into_a_checkpoint(
    tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    assert main(["sample", str(run), "--seeds", "0", "--steps", "1"]) == 0
    assert {path.name for path in (run / "samples").iterdir()} == {
        "drawing.json",
        "grid.png",
        "label-0000-heart_seed-000000.png",
        "label-0001-cat_seed-000000.png",
    }
    checkpoint = run / "checkpoints" / "step-00000010"
    before = sorted(path.name for path in checkpoint.iterdir())
    assert main(["sample", str(checkpoint), "--seeds", "0", "--steps", "1"]) == 0
    assert sorted(path.name for path in checkpoint.iterdir()) == before
    assert len(list((run / "samples-step-00000010").glob("*.png"))) == 3


def test_samples_of_a_copied_checkpoint_are_put_beside_it(tiny_run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(tiny_run / "checkpoints" / "step-00000010", tmp_path / "copied"))
    before = sorted(path.name for path in copied.iterdir())
    assert main(["sample", str(copied), "--seeds", "0", "--steps", "1"]) == 0
    assert sorted(path.name for path in copied.iterdir()) == before
    assert len(list((tmp_path / "samples-copied").glob("*.png"))) == 3


def test_seeds_and_labels_given_twice_are_drawn_once(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["sample", str(tiny_run), "--labels", "cat,0,1,heart", "--seeds", "3,1-3,1", "--steps", "1", "--npz"]
    assert main([*command, "--out", str(out)]) == 0
    assert "6 pictures" in capsys.readouterr().out
    with np.load(out / "samples.npz", allow_pickle=False) as arrays:
        assert arrays["labels"].tolist() == [1, 1, 1, 0, 0, 0]
        assert arrays["seeds"].tolist() == [3, 1, 2, 3, 1, 2]


def test_pictures_are_on_disk_as_soon_as_they_are_drawn(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "out", []

    def count(progress: object, done: int, total: int) -> None:
        seen.append((done, len(list(out.glob("*.png")))))
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("leandit.cli.progress.SamplingProgress.__call__", count)
    command = ["sample", str(tiny_run), "--labels", "0", "--seeds", "0-5", "--batch-size", "2", "--steps", "1"]
    assert main([*command, "--out", str(out)]) == 130
    assert seen == [(1, 0), (2, 2), (3, 4)]


def test_a_grid_that_is_cut_says_so_and_the_arrays_are_whole(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["sample", str(tiny_run), "--seeds", "0-34", "--steps", "1", "--npz", "--out", str(out)]
    assert main(command) == 0
    assert "grid.png shows 64 of the 70 pictures" in capsys.readouterr().out
    assert len(list(out.glob("label-*.png"))) == 70
    with np.load(out / "samples.npz", allow_pickle=False) as arrays, Image.open(out / "grid.png") as grid:
        assert len(arrays["images"]) == 70
        assert 32 * 68 <= grid.size[0] < 33 * 68 + 60
        # The second row starts with the first picture of the second class.
        corner = grid.size[0] - 32 * 68
        np.testing.assert_array_equal(
            np.asarray(grid)[72 : 72 + 64 : 2, corner : corner + 64 : 2], arrays["images"][35]
        )


def test_raw_weights_draw_other_pictures_than_the_average(tiny_run: Path, tmp_path: Path) -> None:
    drawn = []
    for weights in ("ema", "model"):
        out = tmp_path / weights
        command = ["sample", str(tiny_run), "--weights", weights, "--seeds", "1", "--labels", "0", "--npz"]
        assert main([*command, "--out", str(out)]) == 0
        with np.load(out / "samples.npz", allow_pickle=False) as arrays:
            drawn.append(torch.from_numpy(arrays["images"]).int())
    assert (drawn[0] - drawn[1]).abs().max() > 2
