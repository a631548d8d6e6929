"""`leandit resume`: continue a run from its newest intact checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from leandit.cli.train import imports, train_in
from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run.folder import RunFolder
from leandit.run.manifest import MANIFEST


def run(options: argparse.Namespace) -> int:
    """Continue the run in its own folder, with its own settings and the given changes."""
    folder = RunFolder(Path(options.folder))
    if (folder.path / MANIFEST).exists():
        raise LeanDiTError(
            f"{folder.path}: this is a checkpoint; give the folder of its run, which resumes from its newest checkpoint"
        )
    folder.read_config()  # says what is wrong with a folder that is no run
    if not folder.has_checkpoints():
        raise LeanDiTError(
            f"{folder.path}: there is no checkpoint to resume from; start the run with `leandit train {folder.config} "
            f"--out {folder.path}`"
        )
    config = run_config(str(folder.config), options.overrides)
    again = ["leandit", "resume", str(folder.path), *options.overrides, *imports(options)]
    return train_in(folder.path, config, True, again)
