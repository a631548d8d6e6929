"""Out-of-memory errors as a message that names the settings which reduce memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from leandit.errors import LeanDiTError
from leandit.run.config import TrainConfig

# torch's allocator for the CPU raises plain RuntimeErrors.
_CPU_MESSAGES = ("can't allocate memory", "not enough memory")


@contextlib.contextmanager
def explain_out_of_memory(train: TrainConfig) -> Iterator[None]:
    """Turn every kind of out-of-memory error into a LeanDiTError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise LeanDiTError(
            f"out of memory on {train.device}: {reason}\n"
            f"Raise train.accumulation (now {train.accumulation}: micro-batches of "
            f"{train.batch_size // train.accumulation}), set train.activation_checkpointing=true (now "
            f"{str(train.activation_checkpointing).lower()}), or lower train.batch_size (now {train.batch_size}) or "
            "the model's size; `leandit train ... --dry-run` estimates the memory"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python, the GPU's allocator or the CPU's allocator ran out of memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _CPU_MESSAGES)
