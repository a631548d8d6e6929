"""Whole runs by name, by file and with overrides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leandit.config import diff, write_config
from leandit.errors import LeanDiTError
from leandit.presets import PRESETS, run_config


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_complete_and_survives_a_file(name: str, tmp_path: Path) -> None:
    config = run_config(name)
    assert config.name == name
    write_config(config, tmp_path / "config.json")
    assert run_config(str(tmp_path / "config.json")) == config


def test_overrides_change_what_they_name_and_nothing_else() -> None:
    changed = run_config("tiny", ["train.steps=7", "model.moe.strategy=token_choice"])
    assert diff(run_config("tiny"), changed) == [
        ("model.moe.strategy", "expert_race", "token_choice"),
        ("train.steps", 20, 7),
    ]


def test_null_turns_experts_off() -> None:
    assert run_config("tiny", ["model.moe=null"]).model.moe is None


def test_another_type_of_optimizer_starts_from_its_own_defaults() -> None:
    given = run_config("quickstart", ["optimizer.lr=0.5", "optimizer.type=adamw"]).optimizer
    assert (given.type, given.lr) == ("adamw", 0.5)


@pytest.mark.parametrize(("suffix", "text"), [("toml", 'preset = "tiny"\n[train]\nsteps = 3\n'), ("json", "")])
def test_a_file_restates_a_preset_in_part(suffix: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine.{suffix}"
    path.write_text(text or json.dumps({"preset": "tiny", "train": {"steps": 3}}), encoding="utf-8")
    changes = diff(run_config("tiny"), run_config(str(path), ["train.batch_size=4"]))
    assert changes == [("train.batch_size", 8, 4), ("train.steps", 20, 3)]


def test_a_file_that_changes_a_type_replaces_the_table(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "quickstart"\n[optimizer]\ntype = "adamw"\n', encoding="utf-8")
    assert run_config(str(path)).optimizer.type == "adamw"


def test_mistakes_are_answered_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(LeanDiTError, match=r"unknown preset 'quikstart'. Did you mean 'quickstart'"):
        run_config("quikstart")
    with pytest.raises(LeanDiTError, match=r"preset tiny with overrides: 1 error.*\n  train.stepz: .*'steps'"):
        run_config("tiny", ["train.stepz=3"])
    path = tmp_path / "mine.toml"
    path.write_text('preset = "tinny"\n', encoding="utf-8")
    with pytest.raises(LeanDiTError, match=r"mine.toml: unknown preset 'tinny'. Did you mean 'tiny'"):
        run_config(str(path))
    with pytest.raises(LeanDiTError, match="no such configuration file"):
        run_config(str(tmp_path / "absent.toml"))


def test_a_model_may_be_given_by_its_name(tmp_path: Path) -> None:
    config = run_config("quickstart", ["model=RaceDiT-B/2-4in32", "model.depth=3"])
    assert (config.model.dim, config.model.depth, config.model.moe.num_experts) == (768, 3, 32)
    assert config.model.input_size is config.model.channels is config.model.num_classes is None
    path = tmp_path / "run.toml"
    path.write_text('preset = "quickstart"\nmodel = "DiT-S/4"\n')
    assert run_config(str(path), ["losses.per_layer_regularisation=0"]).model.dim == 384
    gshard = run_config(
        "emoji-pixart", ["model=GShard-XL-8E", "losses.gshard_balance=0.01", "losses.router_similarity=0"]
    )
    assert (gshard.model.moe.capacity_factor, gshard.model.text_dim) == (2.0, None)
    with pytest.raises(LeanDiTError, match=r"Did you mean 'DiT-S/[248]'"):
        run_config("quickstart", ["model=DiT-S/3"])


def test_only_the_race_has_the_losses_of_expert_race() -> None:
    for name in PRESETS:
        config = run_config(name)
        if config.model.moe is None or config.model.moe.strategy != "expert_race":
            weights = config.losses
            assert not (weights.router_similarity and config.model.moe), name
