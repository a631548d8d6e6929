"""The folder into which a command writes its results."""

from __future__ import annotations

from pathlib import Path

from leandit.errors import LeanDiTError
from leandit.run.checkpoint import STATE
from leandit.run.folder import RunFolder
from leandit.run.manifest import MANIFEST
from leandit.sampling.bundled import bundled_name


def output_folder(given: str | Path | None, path: Path, name: str) -> Path:
    """Return the given folder, or the default one of the run.

    The default is RUN/name. For a checkpoint it is RUN/name-step-..., or a folder next to the checkpoint if the
    checkpoint is not in a run. For a model in the package it is MODEL-name in the current folder. Raises LeanDiTError
    if the folder is inside a checkpoint, because checkpoints never change.
    """
    out = Path(given) if given else _default(path, name)
    for folder in (out.resolve(), *out.resolve().parents):
        if _is_checkpoint(folder):
            raise LeanDiTError(f"--out {out}: {folder} is the folder of a checkpoint; choose a folder outside it")
    return out


def _is_checkpoint(folder: Path) -> bool:
    """Return whether the folder is a checkpoint, or is reserved for future ones."""
    if (folder / MANIFEST).exists() and (folder / STATE).exists():
        return True
    return folder.parent.name == "checkpoints" and RunFolder(folder.parents[1]).config.exists()


def _default(path: Path, name: str) -> Path:
    if (model := bundled_name(path)) is not None:
        return Path(f"{model}-{name}")
    if not (path / MANIFEST).exists():
        return path / name
    folder = path.resolve()
    around = folder.parents[1] if folder.parent.name == "checkpoints" else folder.parent
    return around / f"{name}-{folder.name}"
