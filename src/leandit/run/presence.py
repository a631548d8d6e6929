"""Notice that a run's folder is moved, deleted or replaced while a training writes to it."""

from __future__ import annotations

import os
from pathlib import Path

from leandit.errors import LeanDiTError


class Presence:
    """The folder of a run as it is now, held open. A folder of the same name that appears later is not this folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise LeanDiTError(f"{path}: the run's folder cannot be opened: {error.strerror}") from None
        self._identity = _identity(os.fstat(self._descriptor))

    def is_here(self) -> bool:
        """Return whether the folder is still where it was."""
        return self._is_at(self.path)

    def moved(self) -> Path | None:
        """Return None if the folder is where it was, or else its new path. Raises LeanDiTError if it was deleted."""
        if self.is_here():
            return None
        try:
            # The kernel follows an open folder. Its name for a deleted one ends in " (deleted)".
            place = Path(os.readlink(f"/proc/self/fd/{self._descriptor}"))
        except OSError:
            place = self.path
        if self._is_at(place):
            return place
        raise LeanDiTError(
            f"{self.path}: the run's folder was deleted or replaced during training, so no checkpoint can be saved "
            "there.\nNothing was written in its place. Restore the folder and resume, or start again in another --out"
        )

    def close(self) -> None:
        """Close the folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_at(self, path: Path) -> bool:
        try:
            return _identity(path.stat()) == self._identity
        except OSError:
            return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
