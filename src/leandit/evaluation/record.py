"""The result of an evaluation: the numbers and everything that they depend on, in one JSON file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from leandit.errors import LeanDiTError
from leandit.evaluation.metric import Job, Measurement, Plan
from leandit.evaluation.samples import drawing_facts, sampling_facts
from leandit.run.config import SamplingConfig
from leandit.run.weights import checkpoints_of
from leandit.sampling import LoadedRun, picture_shape

FORMAT = "leandit-evaluation"
VERSION = 1

Result = tuple[Plan | None, Measurement]


def checkpoint_facts(run: LoadedRun, weights: str) -> dict[str, Any]:
    """Return the step, the kind of weights, and their hash from the checkpoint's manifest."""
    for checkpoint in checkpoints_of(run.path):
        if checkpoint.step == run.step:
            sha256 = checkpoint.manifest.files[f"{weights}.safetensors"].sha256
            return {"step": run.step, "weights": weights, "weights_sha256": sha256}
    raise LeanDiTError(
        f"{run.path}: the checkpoint of step {run.step} is missing, since training deletes old ones; evaluate the run "
        "again, or a checkpoint that is kept (train.keep_every)"
    )


def build_record(
    job: Job,
    settings: SamplingConfig,
    checkpoint: dict[str, Any],
    results: Mapping[str, Result],
    command: list[str],
) -> dict[str, Any]:
    """Return the record as JSON. `conditions` and each metric's `made_of` decide whether two can be compared."""
    run = job.run
    channels, size = picture_shape(run)
    return {
        "format": FORMAT,
        "version": VERSION,
        "run": {"name": run.config.name, "path": str(run.path), **checkpoint},
        "conditions": {
            **sampling_facts(settings),
            **drawing_facts(run),
            "weights": checkpoint["weights"],
            "autoencoder": None if run.config.codec is None else codec_facts(run),
            "picture": {"size": size.plain, "channels": channels},
        },
        "metrics": {name: _metric_record(plan, measured) for name, (plan, measured) in results.items()},
        "reference": {
            "source": getattr(job.reference, "name", None),
            "pictures": len(job.reference),
            "fingerprint": job.reference.fingerprint,
        },
        "made_with": {
            "leandit": version("leandit"),
            "torch": torch.__version__,
            "device": str(run.device),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "command": command,
        },
    }


def write_record(folder: Path, record: dict[str, Any]) -> Path:
    """Write the record into a new file, named by step and time, and return its path."""
    stem = f"step-{record['run']['step']:08d}-{datetime.now():%Y%m%d-%H%M%S}"
    content = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    partial = folder / f".{stem}.{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(content, encoding="utf-8")
            path = _claim(folder, stem)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise LeanDiTError(f"{folder}: cannot be written: {error.strerror or error}; choose another --out") from None
    return path


def read_record(path: Path) -> dict[str, Any]:
    """Return a record that `write_record` wrote; raise LeanDiTError for anything else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LeanDiTError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise LeanDiTError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise LeanDiTError(f"{path}: not a result of `leandit evaluate`, which writes step-....json into its --out")
    if record.get("version") != VERSION:
        raise LeanDiTError(
            f"{path}: written in format {record.get('version')}, this LeanDiT reads format {VERSION}; evaluate again"
        )
    _check_shape(path, record)
    return record


def _claim(folder: Path, stem: str) -> Path:
    """Create an empty file under the first free name, so that no other evaluation takes it, and return its path."""
    number = 0
    while True:
        path = folder / f"{stem}{f'-{number}' if number else ''}.json"
        try:
            # A hard link of the whole file would be shorter, but many network drives have none.
            path.open("x").close()
        except FileExistsError:
            number += 1
        else:
            return path


def _check_shape(path: Path, record: dict[str, Any]) -> None:
    try:
        sound = all(isinstance(record[key], dict) for key in ("run", "conditions", "metrics")) and all(
            _is_sound(metric) for metric in record["metrics"].values()
        )
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise LeanDiTError(f"{path}: a result of `leandit evaluate` that was changed or cut; evaluate again")


def _is_sound(metric: dict[str, Any]) -> bool:
    numbers = metric["values"].values()
    return (
        bool(numbers)
        # JSON allows whole numbers that are too large for a float.
        and all(isinstance(each, float) or (isinstance(each, int) and abs(each) < 2**1023) for each in numbers)
        and isinstance(metric["made_of"], dict)
        and isinstance(metric["samples"], int)
    )


def codec_facts(run: LoadedRun) -> dict[str, Any]:
    """Return what decides how pictures come out of what the model draws."""
    return {"type": run.config.codec_config().type, **run.codec.identity}


def _metric_record(plan: Plan | None, measured: Measurement) -> dict[str, Any]:
    return {
        "values": measured.values,
        "samples": 0 if plan is None else len(plan.seeds),
        "seeds": None if plan is None else _span(plan),
        "made_of": measured.made_of,
    }


def _span(plan: Plan) -> str:
    seeds = plan.seeds
    whole = list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]}-{seeds[-1]}" if whole else f"{len(seeds)} seeds from {min(seeds)} to {max(seeds)}"
