"""Read the weights of a run, for sampling or to start another run. Only verified files are used; nothing changes."""

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
    """Yield the checkpoint at `path`, or the checkpoints of the run at `path`, newest first.

    A checkpoint at `path` must be intact. Damaged checkpoints of a run are skipped with a warning. Raises NotFoundError
    if the folder does not exist.
    """
    if not path.exists():
        raise NotFoundError(f"{path}: no such run or checkpoint folder")
    if (path / MANIFEST).exists() or not (path / CONFIG).exists():
        yield open_checkpoint(path)
    else:
        yield from newest_first(path / "checkpoints")


def read_weights(path: Path, group: str) -> tuple[Checkpoint, dict[str, Tensor]]:
    """Return the newest checkpoint at `path` whose tensors of this group are intact, and these tensors on the CPU."""
    for checkpoint in checkpoints_of(path):
        try:
            return checkpoint, checkpoint.tensors(group)
        except DamagedCheckpoint as error:
            if checkpoint.path == path:
                raise
            _log.warning("skipped: %s", error)
    raise LeanDiTError(f"{path}: the run has no intact checkpoint yet; continue its training with --resume")
