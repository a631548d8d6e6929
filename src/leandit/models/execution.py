"""How the layers of a model run: compiled, with one graph for equal layers, or computed again in the backward pass."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from leandit.errors import LeanDiTError
from leandit.models.backbone import Backbone
from leandit.moe import routers
from leandit.nn import Layer


def recompute_layers(model: Backbone, on: bool = True) -> None:
    """Keep only the input of every layer in training, and compute the layer again in the backward pass."""
    for layer in _layers(model, "train.activation_checkpointing") if on else model.layers:
        layer.recompute = on
    for _, router in routers(model):
        router.keep_logits = on


def compile_layers(model: Backbone, backend: str = "inductor") -> None:
    """Compile every layer in place. Equal layers are compiled once.

    A graph break is an error. Raises LeanDiTError if there is no compiler.
    """
    check_compiler(model.device.type)
    for layer in _layers(model, "train.compile"):
        layer.compile(fullgraph=True, backend=backend)


def _layers(model: Backbone, setting: str) -> list[Layer]:
    layers = list(model.layers)
    if not layers:
        raise LeanDiTError(
            f"{setting}: the backbone has no `leandit.nn.Layer`, so this would do nothing; leave it false"
        )
    return layers


@contextlib.contextmanager
def uncompiled(model: Backbone) -> Iterator[None]:
    """Run the layers uncompiled inside the context. Hooks cannot observe modules inside compiled layers."""
    compiled = {layer: layer._compiled_call_impl for layer in model.layers}
    for layer in compiled:
        layer._compiled_call_impl = None
    try:
        yield
    finally:
        for layer, call in compiled.items():
            layer._compiled_call_impl = call


def check_compiler(device: str) -> None:
    """Raise LeanDiTError if no compiler is installed. torch would report this only in the first step."""
    if device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        raise LeanDiTError(
            "compile: there is no C++ compiler on this machine; install one (on Debian: apt install g++), "
            "or do not compile"
        )
