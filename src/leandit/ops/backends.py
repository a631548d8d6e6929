"""Fast implementations of operators: they are imported when first chosen. Also the conditions for Triton."""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch

from leandit.errors import LeanDiTError

_log = logging.getLogger(__name__)
_LOADED: dict[str, ModuleType] = {}
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def load(module: str) -> ModuleType:
    """Return the module of this name. It is imported at the first call, which must be before compiled code runs."""
    if module not in _LOADED:
        _LOADED[module] = import_module(module)
    return _LOADED[module]


@cache
def has_triton() -> bool:
    """Return whether Triton is installed. torch's CUDA builds for Linux include it."""
    return find_spec("triton") is not None


def suits_triton(device: str, dtype: torch.dtype) -> bool:
    """Return whether the kernels run on a device of this type, in this dtype."""
    return device == "cuda" and dtype in _DTYPES and has_triton()


def require_triton(operator: str, impl: str, device: str, dtype: torch.dtype) -> None:
    """Raise LeanDiTError unless the chosen `impl` can run. On a CPU it needs Triton's interpreter."""
    where = f"{operator}: impl = {impl!r}"
    if not has_triton():
        raise LeanDiTError(f"{where} needs Triton: pip install triton, or choose another impl")
    if device != "cuda" and not interpreted():
        raise LeanDiTError(f"{where} runs on CUDA, not on {device}: choose another impl, or set TRITON_INTERPRET=1")
    if dtype not in _DTYPES:
        raise LeanDiTError(f"{where} takes float32, bfloat16 and float16, not {dtype}: choose another impl")


def interpreted() -> bool:
    """Return whether Triton interprets its kernels, on any device. Call it only if Triton is installed."""
    from triton import knobs

    return bool(knobs.runtime.interpret)


@cache
def log_choice(operator: str, device: str, impl: str) -> None:
    """Log once which implementation `auto` is for an operator on a type of device."""
    _log.info("%s on %s: impl=auto is %s", operator, device, impl)
