"""torch.compile, for a model whose whole forward pass is one graph."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import torch

from leandit.errors import LeanDiTError
from leandit.models import Backbone, BackboneOutput


def compiled(model: Backbone) -> Callable[..., BackboneOutput]:
    """Return the compiled model; it shares its weights. A break in the graph is an error, not a slow run.

    Raises LeanDiTError where no compiler is at hand.
    """
    check_compiler(model.device.type)
    return torch.compile(model, fullgraph=True)


def check_compiler(device: str) -> None:
    """Raise LeanDiTError where no compiler is at hand, which torch would find out only in the first step."""
    if device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        raise LeanDiTError(
            "compile: there is no C++ compiler on this machine; install one (on Debian: apt install g++), "
            "or go without compiling"
        )
