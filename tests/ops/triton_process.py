"""Where Triton's kernels are tested: on a GPU if there is one, else in Triton's interpreter.

Triton decides on its interpreter when it is imported, and other tests may have imported it without. A file of kernel
tests therefore runs itself again in a process that starts with the interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if ON_GPU else "cpu"

needs_kernels = pytest.mark.skipif(not (INTERPRETED or ON_GPU), reason="runs in the interpreter, in its own process")
starts_interpreter = pytest.mark.skipif(
    INTERPRETED or ON_GPU or not find_spec("triton"), reason="the kernels run here, or Triton is not installed"
)


def run_interpreted(path: str) -> None:
    """Run the tests of this file in the interpreter, and fail with what they print."""
    start([sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", path], TRITON_INTERPRET="1")


def start(command: list[str], **environment: str) -> None:
    """Run a command without pytest's own variables, and fail with what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env = inherited | environment
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}", pytrace=False)
