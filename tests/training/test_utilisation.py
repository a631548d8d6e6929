"""Model FLOPs utilisation against the arithmetic of a step that is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from leandit.data import build_source
from leandit.models import forward_flops
from leandit.presets import run_config
from leandit.run import RunFolder
from leandit.run.resolve import resolve
from leandit.training import Trainer, utilisation
from leandit.training.utilisation import Utilisation, peak_flops


def test_the_share_is_flops_per_second_over_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utilisation, "peak_flops", lambda device, dtype, threads: 1e9)
    assert Utilisation(run_config("tiny", ["train.device=cpu"])).share(3e8) == pytest.approx(0.3)


def test_a_step_counts_three_forward_passes(tmp_path: Path) -> None:
    config = run_config("tiny", ["train.device=cpu", "train.batch_size=6", "train.accumulation=3"])
    source = build_source(config.data.source)
    trainer = Trainer(resolve(config, source), source, RunFolder(tmp_path))
    *_, flops = trainer._train_step(trainer.loader.batch(0))
    trainer.metrics.close()
    assert flops == pytest.approx(3 * 6 * forward_flops(trainer.config.model))


def test_the_peak_is_that_of_a_matrix_product() -> None:
    assert 1e8 < peak_flops(torch.device("cpu"), torch.float32, 1) < 1e14
