"""Read the weights of a run, for sampling or to start another run. Only verified files are used; nothing changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from leandit.errors import LeanDiTError, NotFoundError
from leandit.run.checkpoint import CONFIG, Checkpoint, newest_first, open_checkpoint
from leandit.run.fit import check_finite_tensors, check_state
from leandit.run.folder import RunFolder
from leandit.run.manifest import MANIFEST, DamagedCheckpoint

_log = logging.getLogger(__name__)
T = TypeVar("T")


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
        folder = RunFolder(path)
        yield from newest_first(folder.checkpoints, folder.read_id())


def read_newest(path: Path, use: Callable[[Checkpoint], T]) -> T:
    """Return `use(checkpoint)` for the newest checkpoint at `path` for which it raises no DamagedCheckpoint.

    A checkpoint at `path` itself must be intact; of a run, the checkpoint before is used instead, with a warning.
    """
    for checkpoint in checkpoints_of(path):
        try:
            return use(checkpoint)
        except DamagedCheckpoint as error:
            if checkpoint.path == path:
                raise
            _log.warning("skipped: %s", error)
    raise LeanDiTError(f"{path}: the run has no intact checkpoint yet; continue its training with --resume")


def read_weights(path: Path, group: str) -> tuple[Checkpoint, dict[str, Tensor]]:
    """Return the newest checkpoint at `path` whose tensors of this group are intact, and these tensors on the CPU."""

    def read(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, Tensor]]:
        tensors = checkpoint.tensors(group)
        check_finite_tensors(checkpoint.file(group), tensors)
        check_state(checkpoint)
        return checkpoint, tensors

    return read_newest(path, read)
