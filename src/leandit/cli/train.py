"""`leandit train`: train, resume, or show the cost of a run."""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from leandit.api import dry_run, train
from leandit.cli.dry_run import print_dry_run
from leandit.cli.output import say, status
from leandit.cli.progress import TrainingProgress
from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run import RunConfig
from leandit.run.checkpoint import CONFIG, list_steps
from leandit.run.folder import RunFolder

_RUNS = Path("runs")


def run(options: argparse.Namespace) -> int:
    """Train in the chosen folder, and name it at the end."""
    config = run_config(options.preset, options.overrides)
    if options.json and not options.dry_run:
        raise LeanDiTError("--json belongs to --dry-run")
    if options.dry_run:
        print_dry_run(dry_run(config), options.json)
        return 0
    out = Path(options.out) if options.out else _default_folder(options.preset, config.name, options.resume)
    again = ["leandit", "train", options.preset, *options.overrides, "--out", str(out), "--resume", *imports(options)]
    return train_in(out, config, options.resume, again)


def train_in(out: Path, config: RunConfig, resume: bool, again: Sequence[str]) -> int:
    """Train in the folder `out` with everything that a user wants to know; `again` is the command that continues."""
    status(f"{'Resuming' if resume else 'Training'} {config.name} in {out}")
    code = train(config, out, resume=resume, callbacks=[TrainingProgress()])
    if code:
        complete = config.train.steps in list_steps(out / "checkpoints")
        say(
            f"Stopped: the run is complete, only pictures are missing; draw them with: {shlex.join(again)}"
            if complete
            else f"Stopped after a checkpoint; continue with: {shlex.join(again)}"
        )
        return code
    say(f"\nDone: {out}")
    for pattern, meaning in _PICTURES.items():
        newest = max(out.glob(pattern), key=lambda path: path.stat().st_mtime, default=None)
        if newest is not None:
            say(f"  {newest}: {meaning}")
    say(f"Draw more with: leandit sample {out}")
    return 0


def imports(options: argparse.Namespace) -> list[str]:
    """Return the words that import the same kinds again."""
    return [word for name in getattr(options, "imports", ()) for word in ("--import", name)]


_PICTURES = {
    "samples.png": "pictures that the model draws",
    "loss.png": "the losses, and the balance of the experts, over the steps",
    "compute.png": "experts per token over the picture and over the timestep",
    "probe*/report.html": "the same and more as a page for a browser",
}


def _default_folder(preset: str, name: str, resume: bool) -> Path:
    """Return the first free folder of runs/NAME, runs/NAME-2, ...

    With `resume` it is the run whose config.json was named as `preset`, or the last existing one of these.
    """
    given = Path(preset)
    if resume and given.name == CONFIG and RunFolder(given.parent).checkpoints.is_dir():
        return given.parent
    if not resume:
        numbered = (_RUNS / f"{name}-{number}" for number in itertools.count(2))
        return next(folder for folder in itertools.chain([_RUNS / name], numbered) if not folder.exists())
    last = max(_RUNS.glob("*"), key=lambda folder: _number(folder.name, name), default=None)
    if last is None or not _number(last.name, name):
        raise LeanDiTError(
            f"{_RUNS / name}: there is no run to resume; omit --resume, or give the run's folder with --out"
        )
    return last


def _number(folder: str, name: str) -> int:
    """Return 1 for NAME, n for NAME-n, and 0 for the folder of another run."""
    match = re.fullmatch(re.escape(name) + r"(?:-([2-9]|[1-9]\d+))?", folder)
    return int(match[1] or 1) if match else 0
