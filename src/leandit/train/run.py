"""Start or resume a run: lock, folder, data, trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leandit.data import build_source
from leandit.train.callbacks import Callback, TensorBoardMirror
from leandit.train.config import RunConfig
from leandit.train.folder import RunFolder
from leandit.train.lock import RunLock
from leandit.train.resolve import resolve
from leandit.train.signals import StopRequest
from leandit.train.trainer import Trainer


def run_training(config: RunConfig, out: Path, resume: bool = False, callbacks: Sequence[Callback] = ()) -> int:
    """Train in the folder `out`; return 0, or 130 / 143 if a signal ended it after a checkpoint.

    With `resume`, go on from the newest checkpoint that verifies, or start if there is none yet.
    """
    source = build_source(config.data.source)
    config = resolve(config, source)
    folder = RunFolder(out)
    # Before the lock too, which would otherwise leave its file in a folder that is none of ours.
    folder.check_usable()
    with RunLock(out), StopRequest() as stop:
        folder.start(config, resume)
        if config.train.tensorboard:
            callbacks = [*callbacks, TensorBoardMirror()]
        trainer = Trainer(config, source, folder, callbacks)
        if resume:
            trainer.resume()
        trainer.fit(stop)
    return stop.exit_code
