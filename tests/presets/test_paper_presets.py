"""The papers' recipes as whole runs: the stated numbers, stages that fit each other, dry runs with nothing there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import leandit
from leandit.cli import main
from leandit.cli.dry_run import print_dry_run
from leandit.models import Backbone
from leandit.presets import PRESETS, model_config, run_config
from leandit.run.recipe import AdafactorConfig, RMSPropConfig

# As the papers state them: steps, batch size, rate, warm-up, channels and side of latents, encoders.
STATED: dict[str, dict[str, Any]] = {
    "dit-air-b-256": {"steps": 1_000_000, "batch": 4096, "side": 32, "optimizer": "adafactor"},
    "dit-air-xxl-256": {"steps": 500_000, "batch": 4096, "side": 32, "optimizer": "adafactor"},
    "dit-air-xxl-512": {"steps": 100_000, "batch": 2048, "side": 64, "optimizer": "adafactor"},
    "dit-air-xxl-sft": {"steps": 2_500, "batch": 64, "side": 64, "optimizer": "adafactor"},
    "ec-dit-xl-32e": {"steps": 800_000, "batch": 4096, "side": 32, "optimizer": "rmsprop", "warmup": 20_000},
    "ec-dit-3xl-32e": {"steps": 800_000, "batch": 4096, "side": 32, "optimizer": "rmsprop", "warmup": 20_000},
    "race-dit-xl": {"steps": 1_700_000, "batch": 1024, "side": 32, "optimizer": "adamw", "channels": 4},
}
UNMASKED = {"ec-dit-xl-32e-unmasked": "ec-dit-xl-32e", "ec-dit-3xl-32e-unmasked": "ec-dit-3xl-32e"}
STAGES = {"dit-air-xxl-512": "dit-air-xxl-256", "dit-air-xxl-sft": "dit-air-xxl-512", **UNMASKED}
ALL = [*STATED, *UNMASKED]


@pytest.mark.parametrize("name", STATED)
def test_what_the_papers_state(name: str) -> None:
    config, stated = run_config(name), STATED[name]
    assert (config.train.steps, config.train.batch_size) == (stated["steps"], stated["batch"])
    assert (config.optimizer.type, config.optimizer.lr) == (stated["optimizer"], 1e-4)
    assert (config.schedule.decay, config.schedule.warmup_steps) == ("constant", stated.get("warmup", 0))
    assert (config.data.image_size, config.data.channels) == (stated["side"], stated.get("channels", 8))
    assert (config.model.input_size, config.model.channels) == (config.data.image_size, config.data.channels)
    assert config.objective.type == "rectified_flow"
    assert config.objective.timesteps.type == "logit_normal"


@pytest.mark.parametrize("name", [name for name in STATED if name.startswith("dit-air")])
def test_dit_air_samples_with_heun_sde_and_shifts_with_the_picture(name: str) -> None:
    config = run_config(name)
    sampler, ratio = config.sampling.sampler, config.data.image_size / 32
    assert (sampler.type, sampler.steps, config.sampling.guidance.scale) == ("heun_sde", 50, 7.5)
    assert (config.objective.timesteps.shift, sampler.shift) == (ratio, ratio)
    assert isinstance(config.optimizer, AdafactorConfig)
    assert config.text.encoders[0].bidirectional
    assert config.text.encoders[0].pooled == "mean"


def test_the_final_dit_air_reads_clip_and_a_language_model_at_half_and_three_quarters() -> None:
    config = run_config("dit-air-xxl-256")
    clip, llm = config.text.encoders
    layers_of_the_language_model = 36
    assert [layer / layers_of_the_language_model for layer in llm.layers] == [0.5, 0.75]
    # 1,024 for CLIP/H, 2,048 for each state of the language model.
    assert (config.model.text_dim, config.model.pooled_dim) == (1024 + 2 * 2048, 1024 + 2048)
    assert (clip.type, llm.type) == ("clip", "llm")
    assert len(run_config("dit-air-b-256").text.encoders) == 1


@pytest.mark.parametrize("name", ["ec-dit-xl-32e", "ec-dit-3xl-32e"])
def test_ec_dit_hides_half_and_groups_span_eight_pictures(name: str) -> None:
    config = run_config(name)
    assert isinstance(config.optimizer, RMSPropConfig)
    assert config.optimizer.momentum > 0
    visible = config.train.visible_tokens(config.model.grid.tokens)
    assert (visible, config.model.moe.group_tokens // visible) == (128, 8)
    assert (config.model.moe.group_tokens, config.model.moe.inference_group_tokens) == (1024, None)
    micro_batch = config.train.batch_size // config.train.accumulation
    assert micro_batch * visible % config.model.moe.group_tokens == 0
    assert config.text.encoders[0].type == "t5"
    named = model_config(f"EC-DiT-{name.split('-')[2].upper()}-32E")
    # The public encoder is narrower than the paper's; all else is the named model.
    assert config.model.replace(text_dim=1536, pooled_dim=1536) == named
    assert (config.model.text_dim, config.model.pooled_dim) == (1024, 1024)
    unmasked = run_config(f"{name}-unmasked")
    assert (unmasked.train.mask_ratio, unmasked.model) == (0, config.model)


def test_race_dit_is_the_model_of_table_7() -> None:
    config = run_config("race-dit-xl")
    assert config.model == model_config("RaceDiT-XL/2-4in32")
    assert config.model.num_classes == 1000
    assert config.text is None


@pytest.mark.parametrize(("later", "earlier"), STAGES.items())
def test_each_stage_starts_from_weights_that_fit(later: str, earlier: str) -> None:
    config, before = run_config(later), run_config(earlier)
    assert config.start.path == f"runs/{earlier}"
    assert (config.text, config.objective.prediction) == (before.text, before.objective.prediction)
    with torch.device("meta"):
        now, then = (kind.model.build().state_dict() for kind in (config, before))
    assert {name: tensor.shape for name, tensor in now.items()} == {name: t.shape for name, t in then.items()}


@pytest.mark.parametrize("name", ALL)
def test_a_dry_run_needs_nothing_of_it_here(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Backbone, "init_weights", _never)
    found = leandit.dry_run(config := run_config(name))
    assert found.config.train.steps == config.train.steps
    assert found.cost.measured_on == 0
    print_dry_run(found, False)
    assert "time per step   at least" in capsys.readouterr().out
    keys = list(found.missing)
    encoders = len(config.text.encoders) if config.text else 0
    assert keys == [
        "data.source",
        *(f"text.encoders.{number}" for number in range(encoders)),
        *(["start"] if config.start else []),
    ]
    assert list(tmp_path.iterdir()) == []


def _never(self: Backbone) -> None:
    raise AssertionError("weights were made, where the meta device has none")


@pytest.mark.parametrize("name", ["race-dit-xl", "dit-air-xxl-sft"])
def test_a_start_without_the_data_is_a_clear_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", name]) == 2
    assert "no such folder; correct data.source.path" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def dry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.chdir(tmp_path)
    return main(["train", *words, "--dry-run"])


def test_a_dry_run_lists_a_start_run_alone_when_all_else_is_here(
    tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry(tmp_path, monkeypatch, "tiny", "start.path=absent") == 0
    output = capsys.readouterr().out
    assert "set start=null to start from random weights\n" in output
    assert output.split("Not here yet:\n")[1].startswith("  start: start.path: absent: no such run")
    assert "in 2 classes" in output
    assert dry(tmp_path, monkeypatch, "tiny", f"start.path={tiny_run}") == 0
    assert "Not here yet" not in capsys.readouterr().out


def test_a_dry_run_says_what_it_needs_to_know_the_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = ["data.source.type=class_folder", "data.source.path=absent"]
    assert dry(tmp_path, monkeypatch, "tiny", *absent) == 2
    error = capsys.readouterr().err
    assert "absent: no such folder" in error
    assert "set model.num_classes" in error
    assert dry(tmp_path, monkeypatch, "tiny", *absent, "model.num_classes=7") == 0
    encoders = 'text.encoders=[{"type": "t5", "path": "absent/t5"}]'
    capsys.readouterr()
    assert dry(tmp_path, monkeypatch, "emoji-pixart", encoders) == 2
    error = capsys.readouterr().err
    assert "absent/t5: no such folder" in error
    assert "set model.text_dim and model.pooled_dim" in error
    assert dry(tmp_path, monkeypatch, "emoji-pixart", encoders, "model.text_dim=8", "model.pooled_dim=8") == 0
    assert "text.encoders.0: absent/t5" in capsys.readouterr().out


def _a_file(folder: Path) -> list[str]:
    (folder / "set").write_text("no folder")
    return ["data.source.type=class_folder", "data.source.path=set", "model.num_classes=2"]


def _an_empty_run(folder: Path) -> list[str]:
    (folder / "run").mkdir()
    return ["start.path=run"]


@pytest.mark.parametrize("spoil", [_a_file, _an_empty_run])
def test_what_is_there_and_unusable_is_an_error_in_a_dry_run_too(
    spoil: Callable[[Path], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dry(tmp_path, monkeypatch, "tiny", *spoil(tmp_path)) == 2


@pytest.mark.parametrize(
    ("optimizer", "least", "most"), [("adamw", 2, 2.01), ("rmsprop", 2, 2), ("muon", 1.1, 1.9), ("adafactor", 1, 1.2)]
)
def test_the_memory_of_a_dry_run_has_the_optimisers_own_state(
    optimizer: str, least: float, most: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    monkeypatch.setattr(
        "leandit.training.dry_run.training_memory", lambda *_, moments, **rest: given.append(moments) or 1
    )
    assert dry(tmp_path, monkeypatch, "tiny", f"optimizer.type={optimizer}") == 0
    assert least <= given[0] <= most


def test_the_recipes_are_presets() -> None:
    assert set(ALL) <= PRESETS.keys()
