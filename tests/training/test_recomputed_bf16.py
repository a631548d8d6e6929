"""Layers that share weights, computed again in the backward pass under autocast: a step runs, and is the same step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from leandit.data import build_source
from leandit.models import DiTConfig
from leandit.models.memory import training_memory
from leandit.moe import MoEConfig
from leandit.presets import run_config
from leandit.run import RunFolder
from leandit.run.resolve import resolve
from leandit.training import Trainer


def gradients(tmp_path: Path, sharing: str, recompute: bool) -> dict[str, torch.Tensor]:
    settings = ["train.precision=bf16", f"model.sharing={sharing}", "model.depth=3"]
    config = run_config("tiny", [*settings, f"train.activation_checkpointing={str(recompute).lower()}"])
    source = build_source(config.data.source)
    trainer = Trainer(resolve(config, source, None), source, RunFolder(tmp_path / f"{sharing}-{recompute}"))
    task = trainer.task
    for parameter in task.module.parameters():  # what starts at zero hides the layers behind it
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
    task.module.train()
    batch = trainer.loader.batch(0)
    task.forward(batch, slice(0, 16)).loss.backward()
    return {name: p.grad.clone() for name, p in task.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("sharing", ["none", "adaln", "attention", "block"])
def test_recomputation_gives_the_gradients(tmp_path: Path, sharing: str) -> None:
    kept, recomputed = (gradients(tmp_path, sharing, recompute) for recompute in (False, True))
    assert kept.keys() == recomputed.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=0.05, atol=1e-3 * float(gradient.abs().max()))


@pytest.mark.parametrize("sharing", ["attention", "block"])
def test_the_memory_of_such_a_step_is_estimated(sharing: str) -> None:
    sizes = {"dim": 16, "depth": 3, "heads": 2, "input_size": 8, "channels": 1, "num_classes": 2}
    config = DiTConfig(**sizes, sharing=sharing, moe=MoEConfig(k=1, num_experts=2))
    assert training_memory(config, 4, bf16=True, activation_checkpointing=True) > 0
