"""The text presets, each cut down to a few small steps, with the encoder that they name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from leandit.api import load, sample
from leandit.presets import PRESETS, run_config
from leandit.run.checkpoint import find_newest
from leandit.training import run_training

TEXT_PRESETS = [name for name in PRESETS if name.startswith("emoji-")]
SMALL = [
    *("train.batch_size=16", "train.precision=fp32", "train.checkpoint_every=2", "train.validate_every=null"),
    *("model.depth=2", "schedule.decay=constant", "schedule.warmup_steps=0", "data.validation=null"),
    *("train.log_every=1", "sampling.sampler.steps=2"),
]


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("preset", TEXT_PRESETS)
def test_a_preset_resumes_to_the_same_bits_and_draws_prompts(tmp_path: Path, preset: str) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_training(run_config(preset, ["train.steps=4", *SMALL]), whole)
    run_training(run_config(preset, ["train.steps=2", *SMALL]), broken)
    run_training(run_config(preset, ["train.steps=4", *SMALL]), broken, resume=True)
    for group in ("model", "ema", "optimizer"):
        one, other = (find_newest(run / "checkpoints").tensors(group) for run in (whole, broken))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert losses(whole) == losses(broken)
    run = load(whole)
    pictures = sample(run, prompts=["red apple, noto emoji", "red apple, fluent emoji"], seeds=[3])
    assert pictures.shape == (2, 32, 32, 3)
    assert not torch.equal(pictures[0], pictures[1])
