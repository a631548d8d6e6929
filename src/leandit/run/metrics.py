"""The metrics of a run as JSON lines. The loss curve and all reports are made from them.

One object per line, `{"step": 10, "loss": 0.5}`. JSON has no NaN, so non-finite values are the strings "nan", "inf" and
"-inf"; `read_metrics` converts them to floats.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leandit.errors import LeanDiTError
from leandit.run.durable import replace_file

_log = logging.getLogger(__name__)
METRICS_FILE = "metrics.jsonl"
_NON_FINITE = ("nan", "inf", "-inf")


class MetricsLog:
    """The append-only log of a run. Only one process at a time writes it (`leandit.run.lock.RunLock`).

    Each line reaches the operating system before `write` returns, so a killed process loses no line. An incomplete last
    line after a power cut is removed on opening. Each checkpoint has a `mark` of the log, so lost lines are noticed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():
                raise LeanDiTError(f"{path}: not a plain file; move it away, and the metrics are written anew")
            self._descriptor = _open(path)
            self._mend_end()
            self._start_digest()
        except OSError as error:
            raise self._failed(error) from None

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line: the step and its values. A value is an int, anything that float() accepts, or a list."""
        if "step" in values:
            raise ValueError("'step' is the name of the step itself")
        record = {"step": int(step), **{name: _to_json(value) for name, value in values.items()}}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        before = os.fstat(self._descriptor).st_size
        try:
            if (written := os.write(self._descriptor, line)) < len(line):
                # A full disk writes only a part of the line, and reports the error at the next write.
                os.write(self._descriptor, line[written:])
        except OSError as error:
            os.ftruncate(self._descriptor, before)
            raise self._failed(error) from None
        self._digest.update(line)
        self._length += len(line)

    def mark(self) -> dict[str, Any]:
        """Return the length and the SHA-256 of the log as it is now, as JSON values for a checkpoint."""
        return {"bytes": self._length, "sha256": self._digest.hexdigest()}

    def check_mark(self, mark: Mapping[str, Any]) -> None:
        """Warn if lines that were there at `mark` are missing or have changed."""
        content = self.path.read_bytes()
        if len(content) < mark["bytes"]:
            lost = f"{mark['bytes'] - len(content)} bytes are missing"
        elif hashlib.sha256(content[: mark["bytes"]]).hexdigest() != mark["sha256"]:
            lost = "lines have changed"
        else:
            return
        _log.warning("%s: %s since the checkpoint was saved; curves and reports of this run show it", self.path, lost)

    def sync(self) -> None:
        """Flush all lines to the disk (fsync). Called with each checkpoint, so that both survive a power cut."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failed(error) from None

    def truncate_after(self, step: int) -> None:
        """Remove the lines of later steps, for a run that is resumed at `step`. The change is atomic."""
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise self._failed(error) from None
        records = _parse(self.path, lines)
        kept = [line for line, record in zip(lines, records, strict=True) if record["step"] <= step]
        if len(kept) == len(lines):
            return
        try:
            replace_file(self.path, b"".join(kept))
            fresh = _open(self.path)
        except OSError as error:
            raise self._failed(error) from None
        os.close(self._descriptor)
        self._descriptor = fresh
        self._start_digest()

    def close(self) -> None:
        """Close the file. The log cannot be used afterwards."""
        os.close(self._descriptor)

    def _start_digest(self) -> None:
        content = self.path.read_bytes()
        self._digest, self._length = hashlib.sha256(content), len(content)

    def _mend_end(self) -> None:
        content = self.path.read_bytes()
        records, intact = _parse_tolerant(self.path, content)
        if intact < len(content):
            os.ftruncate(self._descriptor, intact)
        elif records and not content.endswith(b"\n"):
            os.write(self._descriptor, b"\n")

    def _failed(self, error: OSError) -> LeanDiTError:
        return LeanDiTError(
            f"{self.path}: the metrics could not be written: {error.strerror}.\n"
            "Earlier lines are intact. Free some space or check permissions, then start again."
        )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return all records in order, without an incomplete last line.

    Raises LeanDiTError, which names the file and the line, if an earlier line is not a record or the file cannot be
    read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LeanDiTError(f"{path}: the metrics cannot be read: {error.strerror}") from None
    records, _ = _parse_tolerant(path, content)
    return [{name: _from_json(value) for name, value in record.items()} for record in records]


def _parse_tolerant(path: Path, content: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the records and the length in bytes of the intact part of `content`."""
    lines = content.splitlines(keepends=True)
    if lines and _record(lines[-1]) is None:
        lines.pop()
    return _parse(path, lines), sum(map(len, lines))


def _parse(path: Path, lines: list[bytes]) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is None:
            raise LeanDiTError(
                f'{path}, line {number}: not a record of metrics such as {{"step": 10, "loss": 0.5}}.\n'
                "Only the last line may be incomplete; remove or correct this line."
            )
        records.append(record)
    return records


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and type(value.get("step")) is int else None


def _to_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    return float(value) if isinstance(value, str) and value in _NON_FINITE else value


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
