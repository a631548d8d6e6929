"""How much of the processor a training step uses."""

from __future__ import annotations

import time

import torch

from leandit.run.config import RunConfig

_ROUNDS = 3
_SIDE = {"cpu": 1024, "cuda": 8192}


class Utilisation:
    """Model FLOPs utilisation: FLOPs of the model over what plain matrix products reach on this device.

    MFU = FLOPs of forward and backward per second / peak; backward counts as two forward passes, and what
    recomputation computes again is not counted. The peak is measured, at the run's precision, so that 100 % is what
    this machine can do and not what a data sheet says.

    Reference: PaLM (arXiv 2204.02311), appendix B, with a measured peak.
    """

    def __init__(self, config: RunConfig) -> None:
        dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
        self._peak = peak_flops(torch.device(config.train.device), dtype)

    def share(self, flops_per_second: float) -> float:
        """Return the MFU."""
        return flops_per_second / self._peak


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
