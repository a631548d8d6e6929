"""Statistics of nothing are not perfect, and settings under which nothing can work are errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from leandit import load, sample
from leandit.data import build_source
from leandit.errors import LeanDiTError
from leandit.moe import routers
from leandit.presets import run_config
from leandit.run import RunConfig
from leandit.run.resolve import resolve
from leandit.training import TaskContext
from leandit.training.dry_run import dry_run
from leandit.training.tasks import DenoiseTask

# 16 tokens of a picture (32 pixels in patches of 8), 4 experts.
TOKEN_CHOICE = ["model.moe.strategy=token_choice", "model.moe.gate=softmax"]


def resolved(*overrides: str) -> RunConfig:
    config = run_config("tiny", list(overrides))
    return resolve(config, build_source(config.data.source))


@pytest.mark.parametrize("phase", ["", "inference_"])
@pytest.mark.parametrize(
    ("factor", "group", "slots"),
    [(0.25, None, 1), (0.249, None, 0), (0.5, 8, 1), (0.5, 7, 0), (1e-30, None, 0), (4.0, 1, 1), (3.9, 1, 0)],
)
def test_a_capacity_without_slots_is_an_error(phase: str, factor: float, group: int | None, slots: int) -> None:
    settings = [*TOKEN_CHOICE, f"model.moe.{phase}capacity_factor={factor}"]
    settings += [] if group is None else [f"model.moe.{phase}group_tokens={group}"]
    if slots:
        resolved(*settings)
        return
    with pytest.raises(LeanDiTError, match=rf"model.moe.{phase}capacity_factor = .* leaves no expert a slot"):
        resolved(*settings)


def test_a_group_that_a_micro_batch_cannot_fill_counts_what_is_there() -> None:
    settings = [*TOKEN_CHOICE, "model.moe.capacity_factor=0.03", "model.moe.group_tokens=100000"]
    with pytest.raises(LeanDiTError, match="128 tokens"):  # 8 pictures of 16 tokens
        resolved(*settings)
    resolved(*settings, "train.batch_size=16")


def test_the_error_is_where_no_expert_runs() -> None:
    """What is refused gives experts nothing, and what is accepted gives them something, in the layer itself."""
    for factor, runs in ((0.25, True), (0.249, False)):
        config = run_config("tiny", [*TOKEN_CHOICE, f"model.moe.capacity_factor={factor}"])
        model = config.model.complete(input_size=32, channels=3, num_classes=2).build().train()
        output = model(torch.randn(2, 3, 32, 32), torch.rand(2), _labels())
        assert bool(output.routers[0].mask.any()) is runs


def _labels() -> object:
    from leandit.models import Conditioning

    return Conditioning(torch.tensor([0, 1]))


def test_a_layer_without_pairs_has_no_balance() -> None:
    config = resolved()
    task = DenoiseTask(TaskContext(config, build_source(config.data.source), None, torch.device("cpu")))
    count = len([*routers(task.module)])
    nothing = np.zeros((count, 4, 4))
    report = task.report({"co_selection": nothing})
    assert not [key for key in report if key.startswith(("max_violation", "combination_usage"))]
    loads = [value for key, value in report.items() if key.startswith("load/")]
    assert loads == [[0.0] * 4] * count
    something = nothing.copy()
    something[0] = np.diag([3, 1, 0, 0])
    report = task.report({"co_selection": something})
    assert [value for key, value in report.items() if key.startswith("max_violation")] == [2.0]


def test_guidance_without_dropped_labels_is_refused_at_the_start() -> None:
    with pytest.raises(LeanDiTError, match=r"sampling.guidance.scale = 3 needs .*train.label_dropout is 0"):
        resolved("train.label_dropout=0", "sampling.guidance.scale=3")
    resolved("train.label_dropout=0")
    resolved("train.label_dropout=0", "sampling.guidance.scale=3", "model.num_classes=0")
    resolved("train.label_dropout=0", "sampling.guidance.scale=3", "start.path=earlier")


def test_guidance_without_dropped_labels_is_refused_when_drawing(tiny_run: Path) -> None:
    run = load(tiny_run)
    config = run.config.replace(train=run.config.train.replace(label_dropout=0.0))
    never_dropped = replace(run, config=config)
    for scale in (0.0, 2.0):
        with pytest.raises(LeanDiTError, match=f"guidance {scale:g}: .*draw with guidance 1"):
            sample(never_dropped, [0], [0], steps=1, guidance=scale)
    assert sample(never_dropped, [0], [0], steps=1, guidance=1.0).shape == (1, 32, 32, 3)
    assert sample(run, [0], [0], steps=1, guidance=2.0).shape == (1, 32, 32, 3)


CHOICE = ("model.moe.strategy=expert_choice", "model.moe.gate=softmax")


def test_expert_choice_needs_one_pair_in_training_and_in_drawing() -> None:
    """Experts share floor(16 f) pairs of a picture of 16 tokens; without a factor of its own, drawing has f, too."""
    for factor, phase in (("0.06", ""), ("0.06", "inference_")):
        settings = [*CHOICE, f"model.moe.{phase}capacity_factor={factor}"]
        with pytest.raises(LeanDiTError, match=rf"model.moe.{phase}capacity_factor = 0.06 leaves no expert a slot"):
            dry_run(run_config("tiny", settings))
    hole = [*CHOICE, "model.moe.capacity_factor=0.06", "model.moe.group_tokens=128", "train.batch_size=16"]
    with pytest.raises(LeanDiTError, match=r"inference_capacity_factor = 0.06 leaves .* 16 tokens \* 0.06 is below 1"):
        dry_run(run_config("tiny", hole))
    for factor in ("0.0625", "0.2", "4"):
        dry_run(run_config("tiny", [*CHOICE, f"model.moe.capacity_factor={factor}"]))
