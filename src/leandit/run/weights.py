"""The weights of a run, read to draw from them or to start another run: only what verifies, changing nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from leandit.errors import LeanDiTError, NotFoundError
from leandit.run.checkpoint import CONFIG, Checkpoint, newest_first, open_checkpoint
from leandit.run.manifest import MANIFEST, DamagedCheckpoint

_log = logging.getLogger(__name__)


def checkpoints_of(path: Path) -> Iterator[Checkpoint]:
    """Yield the checkpoint that `path` is, or those of the run in it, newest first; NotFoundError without the folder.

    A checkpoint that is named itself must be intact; among a run's, damaged ones are passed over with a warning.
    """
    if not path.exists():
        raise NotFoundError(f"{path}: no such run or checkpoint folder")
    if (path / MANIFEST).exists() or not (path / CONFIG).exists():
        yield open_checkpoint(path)
    else:
        yield from newest_first(path / "checkpoints")


def read_weights(path: Path, group: str) -> tuple[Checkpoint, dict[str, Tensor]]:
    """Return the first of `checkpoints_of` whose tensors of this group verify, and these tensors, on the CPU."""
    for checkpoint in checkpoints_of(path):
        try:
            return checkpoint, checkpoint.tensors(group)
        except DamagedCheckpoint as error:
            if checkpoint.path == path:
                raise
            _log.warning("passed over: %s", error)
    raise LeanDiTError(f"{path}: the run has no intact checkpoint yet; train it on with --resume")
