"""The share of the processor's peak that a training step uses."""

from __future__ import annotations

import time
from functools import lru_cache

import torch

from leandit.run.config import RunConfig

_ROUNDS = 3
_SIDE = {"cpu": 1024, "cuda": 8192}


class Utilisation:
    """Model FLOPs utilisation: the speed of the model relative to plain matrix products on this device.

    MFU = FLOPs per second of forward and backward / peak. The backward pass counts as two forward passes;
    recomputation does not count. The peak is measured at the run's precision, so 100 % is the speed that this machine
    reaches, not that of a data sheet.

    Reference: PaLM (arXiv 2204.02311), appendix B, with a measured peak.
    """

    def __init__(self, config: RunConfig) -> None:
        dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
        self._peak = peak_flops(torch.device(config.train.device), dtype, torch.get_num_threads())

    def share(self, flops_per_second: float) -> float:
        """Return the MFU."""
        return flops_per_second / self._peak


@lru_cache
def peak_flops(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """Return the FLOPs per second of a large square matrix product: the best of a few rounds.

    `threads` is the number of torch's threads. A process measures each combination once.
    """
    side = _SIDE.get(device.type, 1024)
    a = torch.ones(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(_ROUNDS + 1):  # the first round is a warm-up
        _wait(device)
        start = time.perf_counter()
        a @ a
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
