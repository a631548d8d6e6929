"""The run's folder: everything that made the run and everything that came out of it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from leandit.config import read_tree, validate, write_config
from leandit.errors import LeanDiTError
from leandit.run.checkpoint import list_steps
from leandit.run.config import RunConfig
from leandit.run.resume import identity_changes

_VERSIONED = ("leandit", "torch", "numpy", "safetensors", "pillow", "pydantic", "grain")


@dataclass(frozen=True)
class RunFolder:
    """Where things lie in a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @property
    def environment(self) -> Path:
        """One line for every start: date, command, versions, commit, machine."""
        return self.path / "environment.jsonl"

    @property
    def metrics(self) -> Path:
        """The truth about the run's numbers, as JSON lines."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Published checkpoints."""
        return self.path / "checkpoints"

    @property
    def grids(self) -> Path:
        """Grids of samples drawn on the way."""
        return self.path / "grids"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard files, if asked for."""
        return self.path / "tensorboard"

    def read_config(self) -> RunConfig:
        """Return the run's resolved config."""
        if not self.config.exists():
            raise LeanDiTError(
                f"{self.path}: no run of LeanDiT (it has no config.json); give the folder that training named"
            )
        return validate(RunConfig, read_tree(self.config), str(self.config))

    def has_checkpoints(self) -> bool:
        """Whether there is a step to go on from, or was one before it was set aside as damaged."""
        return bool(list_steps(self.checkpoints)) or any(self.checkpoints.glob("step-*.corrupt-*"))

    def check(self, config: RunConfig, resume: bool) -> None:
        """Raise LeanDiTError for a folder that holds other things, another run or the run of another config.

        A run that ended before its first checkpoint has nothing to lose, so any config may take its place.
        """
        self.check_usable()
        if not self.has_checkpoints():
            return
        if not resume:
            raise LeanDiTError(
                f"{self.path}: a run is already in this folder.\nAdd --resume to continue it, or choose another --out"
            )
        self._check_same(config)

    def record(self, config: RunConfig) -> None:
        """Write down what this start is made of: the config and the environment."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # By a rename: a kill must not leave half a config, without which nothing can be resumed.
            beside = self.path / ".config.json.tmp"
            write_config(config, beside)
            os.replace(beside, self.config)
            with self.environment.open("a", encoding="utf-8") as file:
                file.write(json.dumps(environment()) + "\n")
        except OSError as error:
            raise LeanDiTError(f"{self.path}: the run's folder cannot be written: {error.strerror}") from None

    def check_usable(self) -> None:
        """Raise LeanDiTError for a folder that holds other things; nothing is written into it."""
        try:
            foreign = not self.config.exists() and sorted(
                p.name for p in self.path.iterdir() if p.name not in _LEFTOVERS
            )
        except FileNotFoundError:
            return
        except OSError as error:
            raise LeanDiTError(
                f"{self.path}: cannot be used as a run's folder: {error.strerror}; choose another --out"
            ) from None
        if foreign:
            shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise LeanDiTError(
                f"{self.path}: the folder is not empty and holds no run (it has {shown}); choose another --out"
            )

    def _check_same(self, config: RunConfig) -> None:
        changed = [
            f"  {key}: {old!r} in the run, {new!r} now"
            for key, old, new in identity_changes(self.read_config(), config)
        ]
        if changed:
            raise LeanDiTError(
                "\n".join([f"{self.path}: cannot resume with another configuration:", *changed])
                + "\nGo on with the run's own settings, or start a new run in another --out:\n  "
                + shlex.join(["leandit", "train", str(self.config), "--out", str(self.path), "--resume"])
            )


# What a start that was killed early leaves behind.
_LEFTOVERS = {".lock", ".config.json.tmp"}


def environment() -> dict[str, Any]:
    """Return what the numbers of a run may depend on beside its config."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in _VERSIONED},
        "commit": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the source tree that LeanDiT runs from; None for an installed wheel."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [
        git,
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
