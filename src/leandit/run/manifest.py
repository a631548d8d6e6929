"""The manifest of a checkpoint folder: the names of its files, with the size and SHA-256 of each."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leandit.errors import LeanDiTError

FORMAT = "leandit-checkpoint"
VERSION = 1
MANIFEST = "manifest.json"
# Plain names only, so that a manifest cannot point outside its folder.
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class DamagedCheckpoint(LeanDiTError):
    """The content of a checkpoint is incomplete, altered or foreign. An unreadable disk is a plain LeanDiTError."""


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


def record_file(path: Path) -> FileRecord:
    """Return the size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(os.fstat(file.fileno()).st_size, digest)


def write_manifest(folder: Path, step: int, names: Iterable[str]) -> Path:
    """Record the named files of `folder` in its manifest.json, and return the path of the manifest."""
    files = {name: asdict(record_file(folder / name)) for name in names}
    content = {"format": FORMAT, "version": VERSION, "step": step, "files": files}
    path = folder / MANIFEST
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json of `folder`.

    Raises DamagedCheckpoint if it is not a valid manifest, and LeanDiTError if a newer LeanDiT wrote it.
    """
    path = folder / MANIFEST
    content = parse_json_object(path, read_bytes(path))
    if content.get("format") != FORMAT:
        raise DamagedCheckpoint(f"{path}: format is {content.get('format')!r}, expected {FORMAT!r}")
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
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
        size = path.stat().st_size
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{path}: missing, though the manifest lists it") from None
    except OSError as error:
        raise unreadable(path, error) from None
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
    """Read a small file. Raises DamagedCheckpoint if it is missing, and LeanDiTError if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{path}: missing") from None
    except OSError as error:
        raise unreadable(path, error) from None


def parse_json_object(path: Path, content: bytes) -> dict[str, Any]:
    """Parse the JSON object in the content of `path`. Raises DamagedCheckpoint if it is not one."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise DamagedCheckpoint(f"{path}: expected a JSON object, found a {type(value).__name__}")
    return value


def unreadable(path: Path, error: OSError) -> LeanDiTError:
    """Return the error for a file that exists but cannot be read. The checkpoint itself may be intact."""
    return LeanDiTError(
        f"{path}: cannot be read: {error.strerror or error}.\n"
        "Nothing was changed. Check permissions and the disk; if the disk is at fault, move this "
        "checkpoint's folder away, and the one before it is used."
    )


def _manifest_from(content: dict[str, Any]) -> Manifest:
    step, version = content["step"], content["version"]
    if type(step) is not int or step < 0 or type(version) is not int or version < 1:
        raise ValueError(f"step {step!r}, version {version!r}")
    files = {name: FileRecord(int(r["size"]), str(r["sha256"])) for name, r in content["files"].items()}
    bad = [name for name in files if not _FILE_NAME.fullmatch(name)]
    if bad:
        raise ValueError(f"file name {bad[0]!r}")
    return Manifest(step, files)
