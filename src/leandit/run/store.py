"""The checkpoints of one run: published by a rename, verified on resuming, and deleted when they are old.

A checkpoint gets its name only after all its bytes are on the disk, and is never changed afterwards. So a process that
is killed at any time does not damage earlier checkpoints.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.run.checkpoint import Checkpoint, folder_name, list_steps, open_checkpoint, write_checkpoint
from leandit.run.durable import fsync_path
from leandit.run.manifest import DamagedCheckpoint, UnfitCheckpoint, unreadable

# Keep at least two, because one may be damaged when it is needed.
MINIMUM_KEPT = 2
_TEMPORARY = ".tmp-"
_TRASH = ".trash-"
_log = logging.getLogger(__name__)
T = TypeVar("T")


class CheckpointStore:
    """The folder of a run's checkpoints.

    The caller must hold the run's lock (`leandit.run.lock.RunLock`), because unfinished files here are deleted as
    leftovers of a killed process. To read only, use `find_newest` or `open_checkpoint`. The newest `keep` intact
    checkpoints stay (at least 2), and all checkpoints at multiples of `keep_every` steps. `run` is the run's id, which
    goes into each checkpoint.
    """

    def __init__(
        self, folder: Path, keep: int = MINIMUM_KEPT, keep_every: int | None = None, run: str | None = None
    ) -> None:
        self.folder = folder
        self.run = run
        self.keep = max(keep, MINIMUM_KEPT)
        self.keep_every = keep_every

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, ascending. Damaged ones are included until they are renamed."""
        return list_steps(self.folder)

    def set_aside(self) -> list[str]:
        """Return the names of all damaged checkpoints that were renamed."""
        return sorted(path.name for path in self.folder.glob("step-*.corrupt-*"))

    def publish(
        self,
        step: int,
        groups: Mapping[str, Mapping[str, Tensor]],
        state: dict[str, Any],
        config: dict[str, Any],
    ) -> Path:
        """Save a checkpoint, delete old ones, and return its folder.

        `state` and `config` become JSON: tuples become lists, keys become strings. If there is an intact checkpoint of
        the same step, nothing is written. Raises LeanDiTError if a later step exists already (the run was continued
        from an earlier step), or if the disk fails. In both cases no unfinished files remain, and earlier checkpoints
        do not change.
        """
        self._sweep()
        final = self.folder / folder_name(step)
        if self._already_saved(step, final):
            _log.info("%s is saved already and intact; kept as it is", final)
            return final
        temporary = self.folder / f"{_TEMPORARY}{step:08d}-{secrets.token_hex(4)}"
        try:
            self._make_folder()
            write_checkpoint(temporary, step, groups, state, config, self.run)
            os.rename(temporary, final)
            fsync_path(self.folder)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError):
                raise self._not_written(step, groups, error) from error
            raise
        try:
            self._delete_old()
        except LeanDiTError as error:
            _log.warning("older checkpoints stay, as one of them could not be checked: %s", error)
        return final

    def newest(self) -> Checkpoint | None:
        """Return the newest intact checkpoint of this run, or None: see `read`."""
        return self.read(lambda checkpoint: checkpoint)

    def read(self, use: Callable[[Checkpoint], T]) -> T | None:
        """Return `use(checkpoint)` for the newest intact checkpoint that fits, or None if there is no intact one.

        All bytes are verified first. `use` raises UnfitCheckpoint if the content does not fit; then the checkpoint
        before is used. Damaged checkpoints are renamed to `step-<n>.corrupt-<i>` with a warning, and never deleted.
        Unfit ones are renamed if an earlier one fits. If none fits, the run or the program is at fault rather than
        the checkpoints: this raises LeanDiTError and renames none of them. If a checkpoint cannot be read or has a
        newer format, it raises LeanDiTError too.
        """
        self._sweep()
        unfit: list[tuple[Path, UnfitCheckpoint]] = []
        for step in reversed(self.steps()):
            checkpoint = self._verified(step, full=True)
            if checkpoint is None:
                continue
            try:
                checkpoint.check_run(self.run)
                result = use(checkpoint)
            except UnfitCheckpoint as error:
                unfit.append((checkpoint.path, error))
                continue
            for path, reason in unfit:
                self._set_aside(path, reason)
            return result
        if unfit:
            raise LeanDiTError(
                f"{unfit[0][1]}\nNo earlier checkpoint fits this run either; nothing was renamed. Restore the run's "
                "folder from a copy, resume with the version of LeanDiT that wrote it, or start again in another --out"
            )
        return None

    def _verified(self, step: int, full: bool) -> Checkpoint | None:
        path = self.folder / folder_name(step)
        try:
            return open_checkpoint(path, full=full)
        except DamagedCheckpoint as error:
            self._set_aside(path, error)
            return None

    def _already_saved(self, step: int, final: Path) -> bool:
        later = [s for s in self.steps() if s > step]
        if later:
            raise LeanDiTError(
                f"{self.folder}: step {step} cannot be saved: step {later[-1]} is there already, so this "
                "training was continued from an earlier point.\n"
                "Move the later checkpoints away, or use a new run folder."
            )
        saved = self._verified(step, full=True) if final.exists() else None
        try:
            if saved is not None:
                saved.check_run(self.run)
        except UnfitCheckpoint as error:
            self._set_aside(final, error)
            return False
        return saved is not None

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            # Without parents: a run's folder that was moved away must not appear again.
            self.folder.mkdir(exist_ok=True)
            fsync_path(self.folder.parent)

    def _sweep(self) -> None:
        if not self.folder.is_dir():
            return
        try:
            entries = list(self.folder.iterdir())
        except OSError as error:
            raise unreadable(self.folder, error) from None
        for entry in entries:
            if entry.name.startswith((_TEMPORARY, _TRASH)):
                shutil.rmtree(entry, ignore_errors=True)

    def _set_aside(self, path: Path, reason: DamagedCheckpoint) -> None:
        number = 1
        while (target := path.with_name(f"{path.name}.corrupt-{number}")).exists():
            number += 1
        try:
            os.rename(path, target)
        except OSError as error:
            raise LeanDiTError(f"{reason}\nIt could not be renamed to {target.name}: {error.strerror}") from None
        _log.warning("damaged checkpoint set aside as %s: %s", target, reason)

    def _delete_old(self) -> None:
        kept = 0
        for step in reversed(self.steps()):
            if kept < self.keep:
                kept += self._verified(step, full=False) is not None
            elif not self.keep_every or step % self.keep_every:
                self._delete(self.folder / folder_name(step))

    def _delete(self, path: Path) -> None:
        # Rename first: a process that is killed while deleting must not leave half a checkpoint under its name.
        trash = path.with_name(f"{_TRASH}{path.name}-{secrets.token_hex(4)}")
        try:
            os.rename(path, trash)
            shutil.rmtree(trash)
        except OSError as error:
            _log.warning("old checkpoint %s could not be deleted: %s", path, error)

    def _not_written(self, step: int, groups: Mapping[str, Mapping[str, Tensor]], error: OSError) -> LeanDiTError:
        name = os.path.basename(error.filename or "")
        reason = f"{name}: {error.strerror}" if name else f"{error.strerror or error}"
        needed = sum(tensor.nbytes for tensors in groups.values() for tensor in tensors.values())
        intact = self.steps()
        earlier = f"The earlier checkpoints are intact (newest: step {intact[-1]})." if intact else ""
        return LeanDiTError(
            f"{self.folder}: the checkpoint of step {step} could not be written: {reason}\n"
            f"It needs {needed:,} bytes; {self._free()} {earlier}\n"
            "Free some space, or move the run folder to a larger disk; then start the run again to resume."
        )

    def _free(self) -> str:
        existing = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
        try:
            return f"{shutil.disk_usage(existing).free:,} bytes are free there."
        except OSError:
            return "how much is free there could not be read."
