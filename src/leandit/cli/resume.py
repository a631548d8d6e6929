"""`leandit resume`: continue a run from its newest intact checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from leandit.cli.train import train_in
from leandit.presets import run_config
from leandit.run.folder import RunFolder


def run(options: argparse.Namespace) -> int:
    """Continue the run in its own folder, with its own settings and the given changes."""
    folder = RunFolder(Path(options.folder))
    folder.read_config()  # says what is wrong with a folder that is no run
    config = run_config(str(folder.config), options.overrides)
    return train_in(folder.path, config, True, ["leandit", "resume", str(folder.path), *options.overrides])
