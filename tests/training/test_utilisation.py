"""Model FLOPs utilisation against the arithmetic of a step that is known."""

from __future__ import annotations

import pytest
import torch

from leandit.models import forward_flops
from leandit.presets import run_config
from leandit.training import utilisation
from leandit.training.utilisation import Utilisation, peak_flops


def test_the_share_is_three_forward_passes_over_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utilisation, "peak_flops", lambda device, dtype: 1e9)
    config = run_config("emoji-ec-dit", ["train.device=cpu", "model.masking={}", "train.mask_ratio=0.5"])
    config = config.replace(
        model=config.model.complete(input_size=32, channels=3, num_classes=0, text_dim=384, pooled_dim=384).model_dump()
    )
    masked = forward_flops(config.model, 9, 32)
    assert Utilisation(config).share(100.0, 9) == pytest.approx(3 * masked * 100 / 1e9)
    whole = config.replace(train=config.train.replace(mask_ratio=0.0).model_dump())
    assert Utilisation(whole).share(100.0, 9) == pytest.approx(3 * forward_flops(whole.model, 9) * 100 / 1e9)
    assert forward_flops(whole.model, 9) > masked


def test_the_peak_is_that_of_a_matrix_product() -> None:
    assert 1e8 < peak_flops(torch.device("cpu"), torch.float32) < 1e14
