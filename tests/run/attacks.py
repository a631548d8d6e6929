"""Attack a run's folder and look at what resuming and loading make of it."""

from __future__ import annotations

import logging
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from corruptions import GROUPS, Corruption, corrupt

import leandit
from leandit.data import build_source
from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run import RunConfig, RunFolder
from leandit.run.checkpoint import open_checkpoint
from leandit.run.metrics import MetricsLog
from leandit.run.resolve import resolve
from leandit.run.store import CheckpointStore
from leandit.training import Trainer, run_training
from leandit.training.optimizers import optimizer_tensors

SECONDS = 10
SMALL = ["model.dim=16", "model.depth=1", "model.moe.num_experts=2", "model.moe.k=1", "train.steps=4",
         "train.checkpoint_every=2", "train.log_every=1", "train.batch_size=2", "sampling.grid=2"]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What resuming or loading did: "as before", "noticed", "refused"; or a fault: "silent", "crash", "hang"."""

    what: str
    verdict: str
    named: bool
    corruption: Corruption
    text: str


class TooLong(BaseException):
    """Raised by the alarm; a BaseException, so that nothing catches it on the way."""


class Attacker:
    """Trains two tiny runs once, and then resumes and loads corrupted copies of the first in this process."""

    def __init__(self, folder: Path) -> None:
        self.pristine, self.other, self.victim = folder / "pristine", folder / "other", folder / "victim"
        config = run_config("tiny", SMALL)
        for run in (self.pristine, self.other):
            if not run.exists():
                run_training(config, run)
        self.source = build_source(config.data.source)
        self.config: RunConfig = resolve(config, self.source)
        shutil.copytree(self.pristine, self.victim, dirs_exist_ok=True)
        self.trainer = Trainer(self.config, self.source, RunFolder(self.victim))
        self.trainer.metrics.close()
        self.saved = {}
        for path in (self.pristine / "checkpoints").iterdir():
            checkpoint = open_checkpoint(path, full=True)
            task = checkpoint.state["task"]["state"]
            self.saved[checkpoint.step] = ({group: checkpoint.tensors(group) for group in GROUPS}, task)

    def attack(self, seed: int) -> list[Outcome]:
        """Corrupt a fresh copy of the run as the seed says, load it, and resume it."""
        shutil.rmtree(self.victim)
        shutil.copytree(self.pristine, self.victim)
        corruption = corrupt(self.victim, self.other, random.Random(seed))
        return [self._judge("load", self._load, corruption), self._judge("resume", self._resume, corruption)]

    def _judge(self, what: str, act: Callable[[], bool], corruption: Corruption) -> Outcome:
        with heard() as lines:
            try:
                with alarm(SECONDS):
                    verdict = "as before" if act() else "silent"
                if lines and verdict == "as before":
                    verdict = "noticed"
            except LeanDiTError as error:
                verdict = "refused"
                lines.append(str(error))
            except TooLong:
                verdict = "hang"
            except BaseException as error:
                verdict = "crash"
                lines.append(repr(error))
        text = "\n".join(lines)
        return Outcome(what, verdict, any(name in text for name in corruption.files), corruption, text)

    def _load(self) -> bool:
        run = leandit.load(self.victim)
        # Target heads only train.
        drawn = {n: t for n, t in self.saved[run.step][0]["ema"].items() if ".target_head." not in n}
        return same(run.model.state_dict(), drawn)

    def _resume(self) -> bool:
        """Return whether the trainer is exactly what one of the saved checkpoints says."""
        trainer, folder = self.trainer, RunFolder(self.victim)
        trainer.step = 0
        folder.check(self.config, resume=True)
        trainer.store = CheckpointStore(folder.checkpoints, run=folder.claim_id())
        trainer.metrics = MetricsLog(folder.metrics)
        try:
            trainer.resume()
        finally:
            trainer.metrics.close()
        groups, task = self.saved[trainer.step]
        found: dict[str, Any] = {
            "model": trainer.model.state_dict(),
            "ema": trainer.ema.tensors,
            "optimizer": optimizer_tensors(trainer.optimizers, trainer.model),
        }
        return all(same(found[group], groups[group]) for group in GROUPS) and trainer.task.state() == task


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collect the warnings of the library."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("leandit")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
