"""The folder of a run: all its inputs and all its outputs."""

from __future__ import annotations

import json
import os
import platform
import secrets
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
from leandit.run.checkpoint import find_newest, list_steps
from leandit.run.config import RunConfig
from leandit.run.durable import fsync_path, replace_file
from leandit.run.manifest import RUN_ID
from leandit.run.resume import identity_changes

_VERSIONED = ("leandit", "torch", "numpy", "safetensors", "pillow", "pydantic", "grain")


@dataclass(frozen=True)
class RunFolder:
    """The paths in a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @property
    def id_file(self) -> Path:
        """The run's id."""
        return self.path / "run.json"

    @property
    def environment(self) -> Path:
        """One line per start: date, command, versions, commit, machine."""
        return self.path / "environment.jsonl"

    @property
    def metrics(self) -> Path:
        """The numbers of the run, as JSON lines."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Published checkpoints."""
        return self.path / "checkpoints"

    @property
    def grids(self) -> Path:
        """Grids of samples that are drawn during training."""
        return self.path / "grids"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard files, if `train.tensorboard` is set."""
        return self.path / "tensorboard"

    def read_config(self) -> RunConfig:
        """Return the run's resolved config."""
        try:
            there = self.config.exists()
        except OSError as error:
            raise LeanDiTError(f"{self.path}: cannot be read: {error.strerror}") from None
        if not there:
            raise LeanDiTError(
                f"{self.path}: not a run of LeanDiT (it has no config.json); give the folder that training printed"
            )
        if not self.config.is_file():
            raise LeanDiTError(f"{self.config}: not a plain file; copy the config.json of a checkpoint here")
        return validate(RunConfig, read_tree(self.config), str(self.config))

    def read_id(self) -> str | None:
        """Return the run's id, or None for a run of an older LeanDiT. Raises LeanDiTError if the file is damaged."""
        try:
            content = self.id_file.read_bytes() if self.id_file.is_file() else None
        except OSError as error:
            raise LeanDiTError(f"{self.id_file}: cannot be read: {error.strerror}") from None
        if content is None:
            return None
        try:
            run = json.loads(content)["id"]
        except (ValueError, RecursionError, KeyError, TypeError):
            run = None
        if not isinstance(run, str) or not RUN_ID.fullmatch(run):
            raise LeanDiTError(
                f"{self.id_file}: damaged: it does not contain the run's id.\n"
                "Delete this file, and the id is taken from the newest checkpoint"
            )
        return run

    def claim_id(self) -> str:
        """Return the run's id. The first start writes a random one; without the file it is the newest checkpoint's."""
        if (known := self.read_id()) is not None:
            return known
        newest = find_newest(self.checkpoints)
        run = (newest.manifest.run if newest else None) or secrets.token_hex(16)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            replace_file(self.id_file, json.dumps({"id": run}).encode() + b"\n")
        except OSError as error:
            raise LeanDiTError(f"{self.id_file}: cannot be written: {error.strerror}") from None
        return run

    def has_checkpoints(self) -> bool:
        """Whether there is a checkpoint, or was one before it was renamed because it is damaged."""
        return bool(list_steps(self.checkpoints)) or any(self.checkpoints.glob("step-*.corrupt-*"))

    def check(self, config: RunConfig, resume: bool) -> None:
        """Raise LeanDiTError if the folder contains other things, another run, or a run with another config.

        A run that ended before its first checkpoint can be replaced by any config.
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
        """Write the config and the environment of this start."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Write and rename: a killed process must not leave half a config, or the run could not be resumed.
            beside = self.path / ".config.json.tmp"
            write_config(config, beside)
            fsync_path(beside)
            os.replace(beside, self.config)
            with self.environment.open("a", encoding="utf-8") as file:
                file.write(json.dumps(environment()) + "\n")
            fsync_path(self.environment)
            fsync_path(self.path)
        except OSError as error:
            raise LeanDiTError(f"{self.path}: the run's folder cannot be written: {error.strerror}") from None

    def undo_start(self) -> None:
        """Remove what a start left that failed before its first step, so that the folder can be used again.

        A folder with a checkpoint, with numbers or with other files stays as it is. Raises OSError if that fails.
        """
        own = {self.config, self.environment, self.id_file, self.metrics, *(self.path / name for name in _LEFTOVERS)}
        if self.has_checkpoints() or not {*self.path.iterdir()} <= {*own, self.checkpoints}:
            return
        if self.metrics.exists() and self.metrics.stat().st_size:
            return
        if self.checkpoints.exists():
            self.checkpoints.rmdir()
        for path in own:
            path.unlink(missing_ok=True)
        self.path.rmdir()

    def check_usable(self) -> None:
        """Raise LeanDiTError if the folder contains other things. It writes nothing."""
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
            if list_steps(self.checkpoints):
                raise LeanDiTError(
                    f"{self.path}: has checkpoints but no config.json; copy the config.json of a checkpoint here, or "
                    "choose another --out"
                )
            shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise LeanDiTError(
                f"{self.path}: the folder is not empty and contains no run (it has {shown}); choose another --out"
            )

    def _check_same(self, config: RunConfig) -> None:
        changed = [
            f"  {key}: {old!r} in the run, {new!r} now"
            for key, old, new in identity_changes(self.read_config(), config)
        ]
        if changed:
            raise LeanDiTError(
                "\n".join([f"{self.path}: cannot resume with another configuration:", *changed])
                + "\nContinue with the run's own settings:\n  "
                + shlex.join(["leandit", "resume", str(self.path)])
                + "\nor start a new run from its weights in another --out, with "
                + shlex.quote(f"start.path={self.path}")
            )


# Files that can remain if a start is killed early.
_LEFTOVERS = {".lock", ".config.json.tmp"}


def environment() -> dict[str, Any]:
    """Return everything besides the config that can change the numbers of a run."""
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
    """Return the commit of LeanDiT's own source tree, or None for an installed wheel.

    A repository around an installed wheel is not asked: git runs the programs that a repository's config names.
    """
    git, root = shutil.which("git"), Path(__file__).parents[3]
    if git is None or not (root / ".git").exists() or not (root / "src" / "leandit" / "run").is_dir():
        return None
    command = [
        git,
        *("-C", str(root), "-c", "core.fsmonitor=false", "--git-dir", str(root / ".git")),
        *("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"),
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
