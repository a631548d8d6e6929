"""How much of the processor a training step uses."""

from __future__ import annotations

import time

import torch

from leandit.models import forward_flops
from leandit.run.config import RunConfig

_ROUNDS = 3
_SIDE = {"cpu": 1024, "cuda": 8192}


class Utilisation:
    """Model FLOPs utilisation: FLOPs of the model's formulas over what plain matrix products reach on this device.

    MFU = 3 * forward FLOPs per picture * pictures per second / peak; backward counts as two forward passes, and what
    activation checkpointing computes again is not counted. The peak is measured, at the run's precision, so that 100 %
    is what this machine can do and not what a data sheet says.

    Reference: PaLM (arXiv 2204.02311), appendix B, with a measured peak.
    """

    def __init__(self, config: RunConfig) -> None:
        dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
        self._config = config
        self._peak = peak_flops(torch.device(config.train.device), dtype)
        self._flops: dict[int, float] = {}

    def share(self, pictures_per_second: float, text_tokens: int) -> float:
        """Return the MFU of a step whose captions were padded to so many tokens."""
        if text_tokens not in self._flops:
            model, train = self._config.model, self._config.train
            visible = train.visible_tokens(model.grid.tokens) if train.mask_ratio else None
            self._flops[text_tokens] = 3.0 * forward_flops(model, text_tokens, visible)
        return self._flops[text_tokens] * pictures_per_second / self._peak


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOPs per second of a large square matrix product, the best of a few."""
    side = _SIDE.get(device.type, 1024)
    a = torch.ones(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(_ROUNDS + 1):  # the first one sets up what is measured
        _wait(device)
        start = time.perf_counter()
        a @ a
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
