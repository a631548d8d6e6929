"""A training step waits for the device once: whatever reads a number from a tensor is counted."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from leandit.data import build_source
from leandit.moe import STRATEGIES
from leandit.presets import run_config
from leandit.run import RunFolder
from leandit.run.resolve import resolve
from leandit.training import Trainer

# What has to know a tensor's content on the host. Operators of our own are one call each here: that they do not wait
# on a GPU is theirs to show.
WAITING = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "unique", "equal", "repeat_interleave.Tensor")
METHODS = ("item", "tolist", "cpu", "nonzero", "bincount", "__float__", "__int__", "__bool__")


class Waits(TorchDispatchMode):
    """Counts the operators and methods that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: collections.Counter[str] = collections.Counter()
        self.in_operator = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::")
        if name in WAITING or name.partition(".")[0] in WAITING:
            self.found[name] += 1
        self.in_operator = func.namespace == "leandit"
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.in_operator = False


def count(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    batch = trainer.loader.batch(0)
    with monkeypatch.context() as patch, Waits() as waits:
        for name in METHODS:
            original = getattr(torch.Tensor, name)

            def counting(
                self: torch.Tensor, *given: Any, _original: Any = original, _name: str = name, **more: Any
            ) -> Any:
                waits.found[_name] += not waits.in_operator
                return _original(self, *given, **more)

            patch.setattr(torch.Tensor, name, counting)
        trainer._train_step(batch)
    trainer.metrics.close()
    # A read through a method is an operator, too: count it once.
    for name in ("__float__", "__int__", "__bool__", "item"):
        waits.found["_local_scalar_dense"] -= waits.found[name]
    return +waits.found


def build(out: Path, depth: int, *overrides: str) -> Trainer:
    losses = ["losses.load_balance=0.01", "losses.gshard_balance=0.01", "losses.z_loss=0.001"]
    fields = [f"model.depth={depth}", "train.device=cpu", "train.accumulation=2", *losses, *overrides]
    config = run_config("tiny", fields)
    source = build_source(config.data.source)
    return Trainer(resolve(config, source), source, RunFolder(out))


# On a CPU the optimiser counts steps in tensors of its own there, which AdamW's fused form never reads.
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_waits_once_whatever_the_number_of_layers(
    tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = ["model.moe.gate=softmax"] if strategy == "token_choice" else []
    found = [
        count(build(tmp_path / str(depth), depth, f"model.moe.strategy={strategy}", *gate), monkeypatch)
        for depth in (2, 12)
    ]
    assert found[0] == found[1], found
    assert sum(found[0].values()) <= 3, found[0]


@pytest.mark.parametrize(
    "optimizer",
    [
        ("optimizer.type=muon",),
        ("optimizer.type=adafactor",),
        ("optimizer.type=adafactor", "optimizer.beta2=null", "optimizer.scale_by_parameter=true"),
        ("optimizer.type=rmsprop",),
    ],
    ids=["muon", "adafactor", "adafactor of its paper", "rmsprop"],
)
def test_no_optimiser_waits_for_a_parameter(
    tmp_path: Path, optimizer: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [count(build(tmp_path / str(depth), depth, *optimizer), monkeypatch) for depth in (2, 4)]
    assert found[0] == found[1], found
    assert sum(found[0].values()) <= 3, found[0]


def test_a_wait_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build(tmp_path, 2)
    for layer in trainer.model.blocks:
        layer.register_forward_hook(lambda _layer, _given, output: print(float(output.image.sum())))
    assert count(trainer, monkeypatch)["__float__"] == 4  # two layers, two micro-batches
