"""The manifest of a checkpoint folder: run, step, size and SHA-256 of each file, and a SHA-256 of its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leandit.errors import LeanDiTError

FORMAT = "leandit-checkpoint"
# Version 1 has neither the run's id nor a checksum of the manifest itself.
VERSION = 2
MANIFEST = "manifest.json"
# The manifest and the JSON files of a checkpoint are small. A larger one is refused before it is read.
MAX_JSON_BYTES = 64 * 1024**2
_CHECKSUM = "sha256"
_KEYS = {1: {"format", "version", "step", "files"}, 2: {"format", "version", "run", "step", "files", _CHECKSUM}}
_SHA256 = re.compile(r"[0-9a-f]{64}")
RUN_ID = re.compile(r"[0-9a-f]{32}")
# Plain names only, so that a manifest cannot point outside its folder.
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class DamagedCheckpoint(LeanDiTError):
    """The content of a checkpoint is incomplete, altered or foreign. An unreadable disk is a plain LeanDiTError."""


class UnfitCheckpoint(DamagedCheckpoint):
    """All hashes fit, but the content does not belong to this run: other tensors, another config, another run's id."""


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 (hexadecimal) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Step of a checkpoint and the record of every file in it, by name."""

    step: int
    files: dict[str, FileRecord]
    run: str | None = None
    """Id of the run (`RunFolder.claim_id`). None in version 1, and in a checkpoint that was written outside a run."""
    version: int = VERSION


def record_file(path: Path) -> FileRecord:
    """Return the size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(os.fstat(file.fileno()).st_size, digest)


def write_manifest(folder: Path, step: int, names: Iterable[str], run: str | None = None) -> Path:
    """Record the named files of `folder` in its manifest.json, and return the path of the manifest."""
    files = {name: asdict(record_file(folder / name)) for name in names}
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION, "run": run, "step": step, "files": files}
    content[_CHECKSUM] = checksum(content)
    path = folder / MANIFEST
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content without its checksum, as JSON with sorted keys and no spaces."""
    rest = {key: value for key, value in content.items() if key != _CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json of `folder`.

    Raises DamagedCheckpoint if it is not a valid manifest, and LeanDiTError if a newer LeanDiT wrote it.
    """
    path = folder / MANIFEST
    content = parse_json_object(path, read_bytes(path))
    if content.get("format") != FORMAT:
        raise DamagedCheckpoint(f"{path}: format is {content.get('format')!r}, expected {FORMAT!r}")
    # The checksum comes first: a damaged version number must not pass for a newer format.
    if _CHECKSUM in content and content[_CHECKSUM] != checksum(content):
        raise DamagedCheckpoint(f"{path}: altered or damaged after saving: its own checksum does not fit its content")
    version = content.get("version")
    if type(version) is int and version > VERSION:
        raise LeanDiTError(
            f"{path}: written in checkpoint format {version}; this LeanDiT reads up to format {VERSION}.\n"
            "Install the LeanDiT release that wrote it, or a newer one."
        )
    try:
        return _manifest_from(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedCheckpoint(f"{path}: not a manifest that LeanDiT wrote: {error!r}") from None


def check_size(folder: Path, name: str, record: FileRecord) -> None:
    """Raise DamagedCheckpoint if the file is missing or its size differs from the record."""
    path = folder / name
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    # Reading a pipe would wait forever.
    if not stat.S_ISREG(status.st_mode):
        raise DamagedCheckpoint(f"{path}: not a plain file")
    size = status.st_size
    if size != record.size:
        kind = "truncated" if size < record.size else "too long"
        raise DamagedCheckpoint(f"{path}: {kind}: {size} bytes, the manifest says {record.size}")


def check_hash(folder: Path, name: str, record: FileRecord) -> None:
    """Read the whole file. Raises DamagedCheckpoint if its SHA-256 differs from the record."""
    path = folder / name
    try:
        found = record_file(path).sha256
    except OSError as error:
        raise unreadable(path, error) from None
    if found != record.sha256:
        raise DamagedCheckpoint(
            f"{path}: altered or damaged after saving: SHA-256 {found[:12]}..., "
            f"the manifest says {record.sha256[:12]}..."
        )


def read_bytes(path: Path) -> bytes:
    """Read a JSON file. Raises DamagedCheckpoint if it is missing or too large, LeanDiTError if it cannot be read."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DamagedCheckpoint(f"{path}: more than {MAX_JSON_BYTES} bytes, which LeanDiT never writes")
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def parse_json_object(path: Path, content: bytes) -> dict[str, Any]:
    """Parse the JSON object in the content of `path`. Raises DamagedCheckpoint if it is not one."""
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise DamagedCheckpoint(f"{path}: expected a JSON object, found a {type(value).__name__}")
    return value


def unreadable(path: Path, error: OSError) -> LeanDiTError:
    """Return the error for a file that cannot be read: DamagedCheckpoint if it is missing.

    In all other cases the checkpoint itself may be intact.
    """
    if isinstance(error, FileNotFoundError):
        return DamagedCheckpoint(f"{path}: missing")
    return LeanDiTError(
        f"{path}: cannot be read: {error.strerror or error}.\n"
        "Nothing was changed. Check permissions and the disk; if the disk is at fault, move this "
        "checkpoint's folder away, and the one before it is used."
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _manifest_from(content: dict[str, Any]) -> Manifest:
    step, version, run = content["step"], content["version"], content.get("run")
    if type(step) is not int or step < 0 or type(version) is not int or version < 1:
        raise ValueError(f"step {step!r}, version {version!r}")
    if odd := content.keys() ^ _KEYS[version]:
        raise ValueError(f"the key {min(odd)!r} is {'unknown' if min(odd) in content else 'missing'}")
    if run is not None and not (isinstance(run, str) and RUN_ID.fullmatch(run)):
        raise ValueError(f"run {run!r}")
    files = {name: _file_record(name, record) for name, record in content["files"].items()}
    return Manifest(step, files, run, version)


def _file_record(name: str, record: dict[str, Any]) -> FileRecord:
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(f"file name {name!r}")
    size, sha256 = record["size"], record["sha256"]
    if type(size) is not int or not 0 <= size < 2**63 or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"record of {name!r}: {record!r}")
    return FileRecord(size, sha256)
