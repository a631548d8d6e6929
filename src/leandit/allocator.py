"""The C library's allocator, told to keep the memory that it gets back.

A training step allocates and frees the same large blocks again and again. glibc hands each of them back to the kernel,
which clears every page anew at its next use: on a CPU that costs as much as a tenth to a quarter of a step of a model
with experts, whose gradients are large.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_memory() -> bool:
    """Let this process keep freed memory instead of returning it; return whether its C library can.

    Memory then grows to its peak and stays there until the process ends. Only glibc has the setting.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20))
    return all(mallopt(name, value) == 1 for name, value in settings)
