"""Runs that begin with another run's weights: what they begin with, what may differ, and what is refused."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch

from leandit.errors import LeanDiTError, NotFoundError
from leandit.grid import Grid
from leandit.presets import run_config
from leandit.run import RunConfig
from leandit.run.checkpoint import find_newest
from leandit.run.store import CheckpointStore
from leandit.sampling import load
from leandit.training import Callback, Trainer, run_training
from leandit.training.start import StartWeights, find_start, load_start

SHORT = ["train.steps=4", "train.checkpoint_every=2", "train.log_every=1"]


class Watch(Callback):
    """Copies model and average before the first step."""

    def on_start(self, trainer: Trainer) -> None:
        self.step = trainer.step
        self.model = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        self.ema = {name: tensor.clone() for name, tensor in trainer.ema.tensors.items()}


def train(out: Path, *overrides: str, resume: bool = False) -> Watch:
    watch = Watch()
    assert run_training(run_config("tiny", [*SHORT, *overrides]), out, resume, [watch]) == 0
    return watch


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose average, raw weights and thresholds all differ."""
    out = tmp_path_factory.mktemp("earlier") / "run"
    run_training(run_config("tiny", ["train.steps=6", "train.checkpoint_every=3", "train.ema_decay=0.5"]), out)
    return out


def weights(run: Path, group: str) -> dict[str, torch.Tensor]:
    checkpoint = find_newest(run / "checkpoints")
    assert checkpoint is not None
    return checkpoint.tensors(group)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("group", ["ema", "model"])
def test_model_and_average_begin_with_weights_and_thresholds(earlier: Path, tmp_path: Path, group: str) -> None:
    watch = train(tmp_path / "run", f"start.path={earlier}", f"start.weights={group}", "seed=5")
    expected = weights(earlier, group)
    assert not same(weights(earlier, "ema"), weights(earlier, "model"))
    assert any(name.endswith("threshold.value") and tensor != 1.0 for name, tensor in expected.items())
    assert watch.step == 0
    assert same(watch.model, expected)
    assert same(watch.ema, expected)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["start"] == {"path": str(earlier), "weights": group}


def test_a_checkpoint_folder_is_taken_as_it_is_and_a_damaged_one_of_a_run_passed_over(
    earlier: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(earlier, copy)
    steps = CheckpointStore(copy / "checkpoints").steps()
    older, newest = (copy / "checkpoints" / f"step-{step:08d}" for step in steps)
    expected = load(older).model.state_dict()
    named = train(tmp_path / "named", f"start.path={older}")
    assert all(torch.equal(named.model[name], tensor) for name, tensor in expected.items())
    with (newest / "ema.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    assert same(train(tmp_path / "found", f"start.path={copy}").model, named.model)
    assert "skipped" in caplog.text
    with pytest.raises(LeanDiTError, match="altered or damaged"):
        train(tmp_path / "refused", f"start.path={newest}")
    assert not (tmp_path / "refused").exists()


def test_resuming_needs_the_other_run_no_more(earlier: Path, tmp_path: Path) -> None:
    moving = tmp_path / "moving"
    shutil.copytree(earlier, moving)
    whole = train(tmp_path / "whole", f"start.path={moving}", "train.steps=4")
    train(tmp_path / "halved", f"start.path={moving}", "train.steps=2")
    moving.rename(tmp_path / "moved")
    watch = train(tmp_path / "halved", f"start.path={moving}", "train.steps=4", resume=True)
    assert watch.step == 2
    assert same(weights(tmp_path / "halved", "model"), weights(tmp_path / "whole", "model"))
    assert not same(watch.model, whole.model)
    with pytest.raises(LeanDiTError, match=r"start\.path: .* in the run, None now"):
        train(tmp_path / "halved", resume=True)


def test_without_the_run_there_is_a_clear_error_and_no_folder(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(NotFoundError, match=r"start\.path: .*absent: no such run.*set start=null"):
        train(tmp_path / "run", f"start.path={absent}")
    assert not (tmp_path / "run").exists()
    absent.mkdir()
    with pytest.raises(LeanDiTError, match="not a checkpoint of LeanDiT"):
        train(tmp_path / "run", f"start.path={absent}")
    (absent / "config.json").write_text("{}")
    with pytest.raises(LeanDiTError, match="no intact checkpoint yet"):
        train(tmp_path / "run", f"start.path={absent}")
    with pytest.raises(LeanDiTError, match="no intact checkpoint yet"):
        find_start(run_config("tiny", [f"start.path={absent}"]).start)


@pytest.mark.parametrize(
    ("overrides", "tensor", "difference"),
    [
        (
            ["model.dim=64"],
            r"patch_embedding.weight is \[32, 192\] there and \[64, 192\] here",
            "model.dim: 32 there, 64",
        ),
        (["model.depth=3"], r"blocks.2.* is missing there", "model.depth: 2 there, 3 here"),
        (["model.depth=1"], r"blocks.1.* is unknown here", "model.depth: 2 there, 1 here"),
        (["model.moe=null"], r"feed_forward.* is missing there", "model.moe.k: 2 there, None here"),
        (["model.num_classes=5"], r"label_embedding.table.weight is", "model.num_classes: 2 there, 5 here"),
    ],
)
def test_what_does_not_fit_is_named_with_the_setting_that_differs(
    earlier: Path, tmp_path: Path, overrides: list[str], tensor: str, difference: str
) -> None:
    if overrides == ["model.moe=null"]:
        overrides = [*overrides, "losses.per_layer_regularisation=0"]
    with pytest.raises(LeanDiTError) as caught:
        train(tmp_path / "run", f"start.path={earlier}", *overrides)
    message = str(caught.value)
    assert difference in message
    assert "start.path: the ema weights of" in message
    assert re.search(tensor, message)


def remarks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "started from" in record.getMessage()]


def test_an_equal_run_starts_without_a_remark(earlier: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "leandit"):
        train(tmp_path / "run", f"start.path={earlier}")
    (line,) = remarks(caplog)
    assert line == f"started from the ema weights of {earlier}/checkpoints/step-00000006"


def test_target_heads_of_one_side_only_start_fresh_or_stay_behind(
    earlier: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    without = ["model.moe.per_layer_regularisation=false", "losses.per_layer_regularisation=0"]
    plain = train(tmp_path / "plain", f"start.path={earlier}", *without)
    (left,) = remarks(caplog)
    assert "*.target_head.* are not used" in left
    expected = weights(earlier, "ema")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in plain.model.items())
    assert sum("target_head" in name for name in expected) == 4
    caplog.clear()

    again = train(tmp_path / "again", f"start.path={tmp_path / 'plain'}", "seed=3")
    (fresh,) = remarks(caplog)
    assert "*.target_head.* keep their initial weights" in fresh
    own = train(tmp_path / "own", "seed=3").model
    kept = weights(tmp_path / "plain", "ema")
    for name, tensor in again.model.items():
        assert torch.equal(tensor, own[name] if "target_head" in name else kept[name]), name


def test_settings_that_differ_silently_are_told(
    earlier: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "run", f"start.path={earlier}", "model.heads=4", "objective.prediction=x0")
    (line,) = remarks(caplog)
    assert line.endswith(
        "settings differ: model.heads: 2 there, 4 here; objective.prediction: 'velocity' there, 'x0' here"
    )


def test_a_larger_picture_fits_and_positions_keep_their_span_when_asked(
    earlier: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    larger = [f"start.path={earlier}", "data.image_size=64", "objective.timesteps.shift=2"]
    watch = train(tmp_path / "spread", *larger, "model.position_grid=4")
    assert same(watch.model, weights(earlier, "ema"))
    assert remarks(caplog) == []
    spread, small = (
        load(path).model.positions(Grid(side, side)).view(side, side, -1)
        for path, side in ((tmp_path / "spread", 8), (earlier, 4))
    )
    torch.testing.assert_close(spread[::2, ::2], small)
    train(tmp_path / "extended", *larger)
    (line,) = remarks(caplog)
    assert "learned positions of 4 patches per side; model.position_grid=4 keeps their span" in line


IDENTITY: dict[str, object] = {"class_names": []}


def masked_run(masking: bool) -> RunConfig:
    small = [
        "model.dim=16",
        "model.heads=2",
        "model.kv_heads=1",
        "model.cross_kv_heads=2",
        "model.depth=2",
        "model.moe=null",
    ]
    small += ["model.patch_size=8"]
    decoder = '{"decoder_depth": 1, "decoder_dim": 8, "decoder_heads": 2}' if masking else "null"
    config = run_config("emoji-ec-dit", [*small, f"model.masking={decoder}"])
    return config.replace(
        model=config.model.complete(input_size=32, channels=3, num_classes=0, text_dim=6, pooled_dim=6).model_dump()
    )


def random_weights(config: RunConfig, origin: str = "ema weights of run") -> StartWeights:
    generator = torch.Generator().manual_seed(0)
    tensors = config.model.build().state_dict()
    drawn = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}
    return StartWeights(origin, drawn, config.model_dump(mode="json"), IDENTITY)


@pytest.mark.parametrize("there", [True, False])
def test_a_decoder_of_one_side_only_takes_the_output_layer_with_it(
    there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    earlier, config = masked_run(there), masked_run(not there)
    start, model = random_weights(earlier), config.model.build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_start(model, start, config, IDENTITY)
    for name, tensor in model.state_dict().items():
        alone = name.startswith(("decoder.", "final."))
        assert torch.equal(tensor, before[name] if alone else start.tensors[name]), name
    fresh, left = remarks(caplog)
    longer, shorter = (left, fresh) if there else (fresh, left)
    assert ": decoder.*, final.* " in longer
    assert ": final.* " in shorter
    assert "keep their initial weights" in fresh
    assert "are not used" in left


def test_a_decoder_of_both_sides_is_taken_over() -> None:
    config = masked_run(True)
    start, model = random_weights(config), config.model.build()
    load_start(model, start, config, IDENTITY)
    assert same(dict(model.state_dict()), dict(start.tensors))


def test_an_encoder_that_is_fine_tuned_now_keeps_its_own_weights_but_not_the_other_way_round(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = masked_run(False)
    start, model = random_weights(config), config.model.build()
    model.text_encoder = torch.nn.ModuleDict({"0": torch.nn.Linear(2, 3)})
    before = model.text_encoder["0"].weight.clone()
    load_start(model, start, config, IDENTITY)
    assert torch.equal(model.text_encoder["0"].weight, before)
    assert "text_encoder.* keep their initial weights" in remarks(caplog)[0]
    tuned = StartWeights(start.origin, dict(model.state_dict()), start.config, IDENTITY)
    model.text_encoder["0"].reset_parameters()
    tensors = {**tuned.tensors, "text_encoder.0.weight": before}
    load_start(model, StartWeights(start.origin, tensors, start.config, IDENTITY), config, IDENTITY)
    assert torch.equal(model.text_encoder["0"].weight, before)
    with pytest.raises(LeanDiTError, match=r"text_encoder.0.bias is unknown here"):
        load_start(config.model.build(), tuned, config, IDENTITY)


@pytest.mark.parametrize(
    ("there", "here", "told"),
    [
        (
            {"class_names": ["cat", "dog"]},
            {"class_names": ["apple", "cat"]},
            "label 0 was 'cat' there and is 'apple' here",
        ),
        ({"class_names": ["cat"]}, {"class_names": ["cat", "dog"]}, None),
        (
            {"class_names": [], "text_encoder": "a"},
            {"class_names": [], "text_encoder": "b"},
            "text encoder is not the one",
        ),
        ({"class_names": ["x"], "text_encoder": "a"}, {"class_names": ["y"], "text_encoder": "a"}, None),
        ({"class_names": []}, {"class_names": [], "text_encoder": "a"}, None),
    ],
)
def test_what_the_weights_would_take_for_something_else_is_told(
    there: dict[str, object], here: dict[str, object], told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    config = masked_run(False)
    drawn = random_weights(config)
    load_start(config.model.build(), StartWeights(drawn.origin, drawn.tensors, drawn.config, there), config, here)
    assert (told is None and not remarks(caplog)) or told in remarks(caplog)[0]
