"""The validation loss against the objective written out by hand, and a run that it changes nothing of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from leandit.data import EmojiConfig, build_source
from leandit.models import Conditioning
from leandit.presets import run_config
from leandit.random import Stream, normal, uniform
from leandit.run import read_metrics
from leandit.run.checkpoint import find_newest
from leandit.training import Callback, StepReport, Trainer, run_training

HELD_OUT = {"type": "emoji", "split": "held_out", "classes": {"heart": ["heart"], "cat": ["cat-face"]}}
OVERRIDES = ["train.steps=4", "train.log_every=1", "train.validate_every=2"]


def train(out: Path, *overrides: str, callbacks: tuple[Callback, ...] = ()) -> list[dict[str, float]]:
    config = run_config("tiny", [*OVERRIDES, *overrides])
    if "train.validate_every=null" not in overrides:
        config = config.replace(data=config.data.replace(validation=HELD_OUT))
    assert run_training(config, out, callbacks=callbacks) == 0
    return read_metrics(out / "metrics.jsonl")


def test_it_is_the_objectives_mean_loss_on_the_held_out_pictures(tmp_path: Path) -> None:
    expected: list[float] = []

    class ByHand(Callback):
        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            if report.step != 4:
                return
            source = build_source(EmojiConfig.model_validate(HELD_OUT))
            order = [trainer.loader.__class__(source, trainer.config.data, 1, 0).batch(i) for i in range(8)]
            x0 = torch.cat([batch.images for batch in order])
            label = torch.cat([batch.labels for batch in order])
            eps = torch.from_numpy(normal(0, Stream.VALIDATION, range(8), (3, 32, 32)))
            t = torch.special.ndtri(torch.from_numpy(uniform(0, Stream.VALIDATION, range(8), step=1))).sigmoid().float()
            mix = t.reshape(-1, 1, 1, 1)
            model = trainer.model.eval()
            with torch.no_grad():
                prediction = model((1 - mix) * x0 + mix * eps, t, Conditioning(label)).prediction
            expected.append((prediction - (eps - x0)).square().mean().item())
            assert len(source) <= 8

    lines = train(tmp_path, callbacks=(ByHand(),))
    logged = [line for line in lines if "validation_loss" in line]
    assert [line["step"] for line in logged] == [2, 4]
    assert logged[-1]["validation_loss"] == pytest.approx(expected[0], rel=1e-5)


def test_it_changes_no_bit_of_the_run(tmp_path: Path) -> None:
    train(tmp_path / "with")
    train(tmp_path / "without", "train.validate_every=null")
    one, other = (find_newest(tmp_path / name / "checkpoints") for name in ("with", "without"))
    assert one is not None
    assert other is not None
    for group in ("model", "ema", "optimizer"):
        assert all(torch.equal(value, other.tensors(group)[name]) for name, value in one.tensors(group).items())
