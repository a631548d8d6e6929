"""Every kind of data, objective, sampler, model, strategy, gate and precision trains and samples in one go."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leandit import load, sample
from leandit.api import train
from leandit.moe.gate import GATES
from leandit.moe.strategies import STRATEGIES
from leandit.presets import run_config
from leandit.run import read_metrics
from leandit.sampling import LoadedRun
from leandit.training import run_training

pytestmark = pytest.mark.usefixtures("no_figures")

SHORT = ["train.steps=2", "train.batch_size=4", "train.log_every=1"]


def go(out: Path, *overrides: str) -> LoadedRun:
    """Train two steps, check that every logged number is finite, and load the run."""
    assert run_training(run_config("tiny", [*SHORT, *overrides]), out) == 0
    records = read_metrics(out / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2]
    numbers = [value for record in records for value in record.values() if isinstance(value, int | float)]
    assert np.isfinite(numbers).all()
    return load(out)


def draw(run: LoadedRun, count: int = 2) -> torch.Tensor:
    pictures = sample(run, seeds=range(count), steps=3)
    size, channels = run.config.data.image_size, run.config.data.channels
    assert pictures.shape[1:] == (size, size, channels)
    assert pictures.dtype == torch.uint8
    assert pictures.float().std() > 1
    return pictures


def write_pictures(folder: Path, names: list[str], mode: str = "RGB") -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).convert(mode).save(folder / name)


def test_class_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", [f"{kind}/{i}.png" for kind in ("ant", "bee", "cow") for i in range(3)])
    run = go(tmp_path / "run", "data.source.type=class_folder", f"data.source.path={tmp_path / 'data'}")
    assert run.class_names == ("ant", "bee", "cow")
    assert len(draw(run)) == 6
    assert len(sample(run, labels=["cow", 0], seeds=[5], steps=1)) == 2


def test_metadata_folder_with_text_only_is_unconditional(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", ["a.png", "b/c.png", "d.png"])
    lines = [json.dumps({"file_name": name, "text": "a picture"}) for name in ("a.png", "b/c.png", "d.png")]
    (tmp_path / "data" / "metadata.jsonl").write_text("\n".join(lines))
    run = go(
        tmp_path / "run",
        *("data.source.type=metadata_folder", f"data.source.path={tmp_path / 'data'}", "data.num_threads=2"),
        "sampling.guidance.scale=3",
    )
    assert run.model.config.num_classes == 0
    assert len(draw(run)) == 2


def test_idx_without_labels_and_grey_pictures(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape) + images.tobytes()))
    run = go(tmp_path / "run", "data.source.type=idx", f"data.source.images={path}", "data.channels=1")
    assert (run.model.config.num_classes, run.model.config.channels) == (0, 1)
    draw(run)


def test_grey_files_make_rgb_and_colour_files_make_grey(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", ["a.png", "b.png"], mode="L")
    rgb = go(tmp_path / "rgb", "data.source.type=class_folder", f"data.source.path={tmp_path / 'data'}")
    assert draw(rgb).shape[-1] == 3
    assert draw(go(tmp_path / "grey", "data.channels=1")).shape[-1] == 1


@pytest.mark.parametrize("sampler", ["euler", "heun", "ddim", "ddpm"])
def test_ddpm_objective_with_learned_sigma(tmp_path: Path, sampler: str) -> None:
    run = go(
        tmp_path,
        *("objective.type=ddpm", "model.learned_sigma=true", f"sampling.sampler.type={sampler}"),
        *("sampling.sampler.steps=4", "sampling.guidance.scale=2"),
    )
    assert {"mse", "vlb"} <= read_metrics(tmp_path / "metrics.jsonl")[0].keys()
    draw(run)


@pytest.mark.parametrize("sampler", ["euler", "heun", "ddim"])
def test_rectified_flow(tmp_path: Path, sampler: str) -> None:
    draw(go(tmp_path, f"sampling.sampler.type={sampler}", "sampling.guidance.scale=2"))


@pytest.mark.parametrize("gate", sorted(GATES))
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_with_every_gate(tmp_path: Path, strategy: str, gate: str) -> None:
    draw(go(tmp_path, f"model.moe.strategy={strategy}", f"model.moe.gate={gate}"))


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.precision=bf16"],
        ["train.precision=bf16", "optimizer.type=muon", "train.activation_checkpointing=true"],
        ["model.moe.num_shared_experts=2", "model.moe.expert=swiglu", "model.moe.every=2", "model.qk_norm=true"],
        ["model.moe.router=linear", "model.moe.per_layer_regularisation=false", "losses.per_layer_regularisation=0"],
        ["losses.load_balance=0.01", "losses.z_loss=0.001", "model.moe.strategy=token_choice"],
        ["model.num_classes=0"],
        ["model.num_classes=9"],
        ["train.clip=null", "train.ema_decay=0", "train.label_dropout=1"],
    ],
    ids=" ".join,
)
def test_other_choices(tmp_path: Path, overrides: list[str]) -> None:
    draw(go(tmp_path, *overrides))


KEPT_OF_TWO_STEPS = ["compute-00000002.png", "step-00000001.png", "step-00000002.png"]


@pytest.mark.parametrize("overrides", [["model.moe=null"], ["model.moe.every=2", "train.sample_every=1"]], ids=" ".join)
def test_pictures_are_left_behind(tmp_path: Path, overrides: list[str]) -> None:
    assert train(run_config("tiny", [*SHORT, *overrides]), tmp_path) == 0
    expected = {"samples.png", "loss.png"} | ({"compute.png"} if overrides != ["model.moe=null"] else set())
    assert {path.name for path in tmp_path.glob("*.png")} == expected
    kept = ["step-00000002.png"] if overrides == ["model.moe=null"] else KEPT_OF_TWO_STEPS
    assert sorted(path.name for path in tmp_path.glob("grids/*")) == kept
    for path in tmp_path.rglob("*.png"):
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) > 60
