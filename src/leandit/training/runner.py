"""Start or resume a run: lock, folder, data, trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from leandit.allocator import keep_memory
from leandit.data import build_source
from leandit.run.config import RunConfig
from leandit.run.folder import RunFolder
from leandit.run.identity import check_encoder_of_run
from leandit.run.lock import RunLock
from leandit.run.resolve import resolve
from leandit.text import build_text_encoder
from leandit.training.callbacks import Callback, TensorBoardMirror
from leandit.training.memory import explain_out_of_memory
from leandit.training.signals import StopRequest
from leandit.training.start import read_start
from leandit.training.task import Task, TaskContext
from leandit.training.trainer import Trainer
from leandit.training.validation import Validation


def run_training(
    config: RunConfig,
    out: Path,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    task: Callable[[TaskContext], Task] | None = None,
) -> int:
    """Train in the folder `out`; return 0, or 130 / 143 if a signal ended it after a checkpoint.

    With `resume`, go on from the newest checkpoint that verifies. Without any checkpoint yet, start anew, with the
    weights of `config.start` if it names a run. `task` makes another task than the configuration names.
    """
    keep_memory()
    source = build_source(config.data.source)
    text = None if config.text is None else build_text_encoder(config.text)
    if resume:
        check_encoder_of_run(out, config.text, text)
    folder = RunFolder(out)
    # Before the lock too, which would otherwise leave its file in a folder that holds other things.
    folder.check_usable()
    earlier = folder.read_config() if resume and folder.has_checkpoints() else None
    config = resolve(config, source, text, earlier)
    start = None if config.start is None or folder.has_checkpoints() else read_start(config.start)
    callbacks = [Validation(), *callbacks]
    if config.train.tensorboard:
        callbacks = [*callbacks, TensorBoardMirror()]
    with RunLock(out), StopRequest() as stop, explain_out_of_memory(config.train):
        folder.check(config, resume)
        resuming = folder.has_checkpoints()
        if not resuming:
            # Before anything else is written: a folder with files but no config is taken for none of ours.
            folder.record(config)
        given = task and task(TaskContext(config, source, text, torch.device(config.train.device)))
        trainer = Trainer(config, source, folder, callbacks, text, given)
        if start is not None and not resuming:
            trainer.start_from(start)
            del start  # as large as the model
        trainer.resume()
        if resuming:
            # Only now, since the checkpoint may refuse this config.
            folder.record(config)
        trainer.fit(stop)
    return stop.exit_code
