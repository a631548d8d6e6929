"""A setting of the C library: keep freed memory in the process.

A training step allocates and frees the same large blocks again and again. By default glibc returns them to the kernel,
which must clear every page before the next use. On a CPU this takes a tenth to a quarter of the step of a model with
experts, because their gradients are large.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_memory() -> bool:
    """Make this process keep freed memory. Return whether the C library supports it; only glibc does.

    The memory of the process grows to its peak and stays there until the process ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20))
    return all(mallopt(name, value) == 1 for name, value in settings)
