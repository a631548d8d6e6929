"""The runs in a folder, each with its step, its losses, its newest evaluation and its state."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from leandit.errors import LeanDiTError
from leandit.run.checkpoint import list_steps
from leandit.run.config import RunConfig
from leandit.run.folder import RunFolder
from leandit.run.lock import LOCK_FILE
from leandit.run.metrics import read_metrics

State = Literal["training", "finished", "stopped", "damaged"]


@dataclass(frozen=True)
class RunSummary:
    """One run. `loss` and `validation_loss` are the newest in metrics.jsonl; `evaluation` are an evaluation's numbers.

    `state` is "training" if a process holds the run's lock, "finished" if the last step has a checkpoint, "stopped"
    before that, and "damaged" if the folder cannot be read; `problem` then says why. `step` is the newest checkpoint's.
    """

    path: Path
    state: State
    changed: datetime
    name: str = ""
    model: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    evaluation: dict[str, float] | None = None
    problem: str | None = None


def list_runs(folders: Iterable[str | Path] = ("runs",)) -> list[RunSummary]:
    """Return the runs in these folders (or these runs themselves), those that changed last first.

    A run is a folder with a config.json and a folder of checkpoints. Nothing is loaded or changed. Raises LeanDiTError
    for a folder that does not exist; a run that cannot be read is listed as damaged.
    """
    found: dict[Path, RunSummary] = {}
    for given in map(Path, folders):
        if not given.is_dir():
            raise LeanDiTError(f"{given}: no such folder of runs; train one with `leandit train quickstart`")
        try:
            paths = [given] if _is_run(given) else sorted(filter(_is_run, given.iterdir()))
        except OSError as error:
            raise LeanDiTError(f"{given}: cannot be read: {error.strerror}") from None
        for path in paths:
            found.setdefault(path.resolve(), _summary(path))
    return sorted(found.values(), key=lambda run: run.changed, reverse=True)


def _is_run(path: Path) -> bool:
    folder = RunFolder(path)
    try:
        return folder.config.is_file() and (folder.checkpoints.is_dir() or (path / LOCK_FILE).exists())
    except PermissionError:
        return path.is_dir()  # perhaps: it is listed with what is wrong


def _summary(path: Path) -> RunSummary:
    folder = RunFolder(path)
    times = [time for each in (folder.config, folder.metrics, folder.checkpoints, path) if (time := _time(each))]
    changed = datetime.fromtimestamp(max(times[:3], default=0)).astimezone().replace(microsecond=0)
    try:
        config = folder.read_config()
        metrics = read_metrics(folder.metrics) if folder.metrics.exists() else []
        step = max(list_steps(folder.checkpoints), default=0)
    except LeanDiTError as error:
        return RunSummary(path, "damaged", changed, problem=str(error))
    ended: State = "finished" if step >= config.train.steps else "stopped"
    return RunSummary(
        path,
        "training" if _is_locked(path / LOCK_FILE) else ended,
        changed,
        config.name,
        _model(config),
        step,
        config.train.steps,
        _newest(metrics, "loss"),
        _newest(metrics, "validation_loss"),
        next(_evaluations(path / "evaluation"), None),
    )


def _model(config: RunConfig) -> str:
    model, moe = config.model, config.model.moe
    size = f"{model.type} {model.depth} x {model.dim}"
    return size if moe is None else f"{size}, {moe.routing_name} {moe.experts_per_token():g}/{moe.num_experts}"


def _time(path: Path) -> float:
    """Return when a file was changed; 0 if that cannot be known."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0


def _newest(metrics: list[dict[str, Any]], name: str) -> float | None:
    found = (record[name] for record in reversed(metrics) if name in record)
    return next((float(value) for value in found if _is_number(value)), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _evaluations(folder: Path) -> Iterator[dict[str, float]]:
    """Yield the numbers of each result in the folder, the newest first; other files are passed over."""
    for path in sorted(folder.glob("step-*.json"), key=_time, reverse=True):
        try:
            metrics = json.loads(path.read_bytes())["metrics"]
            values = {name: value for metric in metrics.values() for name, value in metric["values"].items()}
            yield {name: float(value) for name, value in values.items() if _is_number(value)}
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            continue


def _is_locked(path: Path) -> bool:
    """Return whether a process holds the lock. A file without a holder's name is free, and is not touched."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        if not os.fstat(descriptor).st_size:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
