"""Start or resume a run: lock, folder, data, trainer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from leandit.allocator import keep_memory
from leandit.data import build_source, summary
from leandit.errors import LeanDiTError
from leandit.run.config import RunConfig
from leandit.run.folder import RunFolder
from leandit.run.identity import check_encoder_of_run
from leandit.run.lock import RunLock
from leandit.run.resolve import check_validation, resolve
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
    """Train in the folder `out`. Return 0, or 130, 143 or 129 if a signal stopped it after a checkpoint.

    With `resume`, continue from the newest intact checkpoint. If there is no checkpoint yet, start from step 0, with
    the weights of `config.start` if it is set. `task` replaces the task of the configuration.
    """
    keep_memory()
    source = build_source(config.data.source)
    held_out = config.data.validation
    validation = None if held_out is None else build_source(held_out, "data.validation")
    text = None if config.text is None else build_text_encoder(config.text)
    if resume:
        check_encoder_of_run(out, config.text, text)
    folder = RunFolder(out)
    # Check this before locking too, because the lock would leave its file in a folder that contains other things.
    folder.check_usable()
    earlier = folder.read_config() if resume and folder.has_checkpoints() else None
    config = resolve(config, source, text, earlier)
    lines = [summary(source, "data.source")]
    if validation is not None:
        check_validation(config, source, validation)
        lines.append(summary(validation, "data.validation"))
    start = None if config.start is None or folder.has_checkpoints() else read_start(config.start)
    callbacks = [Validation(validation), *callbacks]
    if config.train.tensorboard:
        callbacks = [*callbacks, TensorBoardMirror()]
    with RunLock(out) as lock, _undone_if_it_fails(folder), StopRequest() as stop, explain_out_of_memory(config.train):
        folder.check(config, resume)
        resuming = folder.has_checkpoints()
        if not resuming:
            # Write the config first: a folder with files but without a config does not count as a run.
            folder.record(config)
        torch.manual_seed(config.seed)
        context = TaskContext(config, source, text, torch.device(config.train.device))
        given = None if task is None else task(context)
        if task is not None and not isinstance(given, Task):
            raise LeanDiTError(f"task: {task!r} returned {type(given).__name__}, not a leandit.training.Task")
        trainer = Trainer(config, source, folder, callbacks, text, given, lock)
        if start is not None and not resuming:
            trainer.start_from(start)
            del start  # as large as the model
        for callback in callbacks:
            callback.on_data(lines)
        trainer.resume()
        if resuming:
            # Write the config after resuming, because the checkpoint may refuse it.
            folder.record(config)
        trainer.fit(stop)
    return stop.exit_code


@contextlib.contextmanager
def _undone_if_it_fails(folder: RunFolder) -> Iterator[None]:
    """Leave no new folder if a start fails with a mistake of the user before its first step."""
    fresh = not folder.config.exists()
    try:
        yield
    except LeanDiTError:
        if fresh:
            with contextlib.suppress(OSError):  # the folder may have gone
                folder.undo_start()
        raise
