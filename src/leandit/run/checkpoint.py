"""One checkpoint folder. It is written once and never changed; everything is verified before it is loaded.

A folder contains one safetensors file per group of tensors ("model", "ema", "optimizer", ...), state.json,
config.json and manifest.json. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from leandit.errors import LeanDiTError, unknown
from leandit.run.durable import fsync_path
from leandit.run.manifest import (
    MANIFEST,
    DamagedCheckpoint,
    Manifest,
    UnfitCheckpoint,
    check_hash,
    check_size,
    parse_json_object,
    read_bytes,
    read_manifest,
    unreadable,
    write_manifest,
)

STATE = "state.json"
# Key in the state: the fingerprint of the text encoder that the weights were trained with.
TEXT_ENCODER = "text_encoder"
CONFIG = "config.json"
SUFFIX = ".safetensors"
PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
_NO_PICKLES = "LeanDiT never loads pickles: they can run any program. Expected a folder that LeanDiT saved."
_GROUP_NAME = re.compile(r"[a-z][a-z0-9_-]*")
# safetensors reports a failed write (such as a full disk) as its own exception, with the errno in the text.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_FOLDER_NAME = re.compile(r"step-(\d{8,})")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose small files are verified and read. Tensors are verified and read per group, on demand."""

    path: Path
    step: int
    state: dict[str, Any]
    config: dict[str, Any]
    manifest: Manifest
    hashed: bool  # the SHA-256 of every file was checked on opening, so loading does not check it again

    @property
    def groups(self) -> list[str]:
        """The names of its tensor groups."""
        return sorted(name.removesuffix(SUFFIX) for name in self.manifest.files if name.endswith(SUFFIX))

    def file(self, group: str) -> Path:
        """The file of one group of tensors."""
        return self.path / (group + SUFFIX)

    def check_run(self, run: str | None) -> None:
        """Raise UnfitCheckpoint if it belongs to another run than that of this id. Version 1 has no ids."""
        if run is not None and self.manifest.version > 1 and self.manifest.run != run:
            raise UnfitCheckpoint(
                f"{self.path / MANIFEST}: a checkpoint of another run: its run's id is {self.manifest.run}, "
                f"this run's, in run.json, is {run}"
            )

    def tensors(self, group: str) -> dict[str, Tensor]:
        """Return the tensors of one group on the CPU. Raises LeanDiTError if it is missing, foreign or damaged."""
        if group not in self.groups:
            raise UnfitCheckpoint(str(unknown(f"tensor group of {self.path / MANIFEST}", group, self.groups)))
        name = group + SUFFIX
        if not self.hashed:
            _verify(self.path, name, self.manifest)
        return _load(self.path / name)


def folder_name(step: int) -> str:
    """Return the name of the folder of a step, "step-00001000"."""
    return f"step-{step:08d}"


def list_steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint folder in `folder`, ascending. The folders are not verified."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(folder, error) from None
    matches = [_FOLDER_NAME.fullmatch(name) for name in names]
    return sorted(step for m in matches if m and folder_name(step := int(m[1])) == m[0])


def open_checkpoint(path: Path, *, full: bool = False) -> Checkpoint:
    """Open one checkpoint folder, read-only.

    The sizes of all files and the hashes of the JSON files are compared with the manifest now. The hash of a tensor
    file is compared when its group is loaded, so sampling from "ema" never reads the optimizer. With `full`, all hashes
    are compared now and not again on loading.

    Raises DamagedCheckpoint, which names the file, if a file is missing, foreign, pickled, truncated or altered, and
    LeanDiTError if the format is newer or a file cannot be read.
    """
    try:
        _require_checkpoint_folder(path)
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{path}: was deleted while it was opened") from None
    except OSError as error:
        raise unreadable(path, error) from None
    manifest = read_manifest(path)
    if (named := _FOLDER_NAME.fullmatch(path.name)) and int(named[1]) != manifest.step:
        raise DamagedCheckpoint(f"{path / MANIFEST}: says step {manifest.step}, unlike the folder's name")
    for name in (STATE, CONFIG):
        if name not in manifest.files:
            raise DamagedCheckpoint(f"{path / MANIFEST}: lists no {name}")
    for name, record in manifest.files.items():
        check_size(path, name, record)
        if full or not name.endswith(SUFFIX):
            _verify(path, name, manifest)
    state, config = (parse_json_object(path / name, read_bytes(path / name)) for name in (STATE, CONFIG))
    return Checkpoint(path, manifest.step, state, config, manifest, hashed=full)


def find_newest(folder: Path) -> Checkpoint | None:
    """Return the newest readable checkpoint in `folder`, or None."""
    return next(newest_first(folder), None)


def newest_first(folder: Path, run: str | None = None) -> Iterator[Checkpoint]:
    """Yield the readable checkpoints in `folder`, newest first. It changes nothing, so it is safe during training.

    Damaged checkpoints, those that training deletes in the meantime, and with `run` those of a run with another id are
    skipped with a warning.
    """
    for step in reversed(list_steps(folder)):
        try:
            checkpoint = open_checkpoint(folder / folder_name(step))
            checkpoint.check_run(run)
        except DamagedCheckpoint as error:
            _log.warning("skipped: %s", error)
            continue
        yield checkpoint


def write_checkpoint(
    path: Path,
    step: int,
    groups: Mapping[str, Mapping[str, Tensor]],
    state: dict[str, Any],
    config: dict[str, Any],
    run: str | None = None,
) -> None:
    """Write a complete checkpoint of the run with this id into the new folder `path`, and flush it to the disk.

    Raises OSError if the disk fails, and LeanDiTError if the content cannot be written as JSON or safetensors.
    """
    path.mkdir()
    names = [STATE, CONFIG]
    for name, content in ((STATE, state), (CONFIG, config)):
        (path / name).write_text(_to_json(name, content), encoding="utf-8")
    for group, tensors in groups.items():
        if not _GROUP_NAME.fullmatch(group):
            raise LeanDiTError(f"tensor group {group!r}: expected lower-case letters, digits, '-' and '_'")
        _save(path / (group + SUFFIX), tensors)
        # safetensors creates files that only their owner can read. Use the permissions that the umask gives instead.
        shutil.copymode(path / STATE, path / (group + SUFFIX))
        names.append(group + SUFFIX)
    write_manifest(path, step, names, run)
    for name in (*names, MANIFEST):
        fsync_path(path / name)
    fsync_path(path)


def _to_json(name: str, content: dict[str, Any]) -> str:
    try:
        return json.dumps(content, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise LeanDiTError(f"{name}: the content has no JSON form: {error}") from None


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        safetensors.torch.save_file(dict(_storable(tensors)), path)
    except (SafetensorError, TypeError, ValueError, RuntimeError, KeyError) as error:
        if code := _OS_ERROR.search(str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None
        raise LeanDiTError(f"{path.name}: tensors without a safetensors form: {error}") from None


def _storable(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    # safetensors refuses tensors that share memory, so each of them gets its own copy on disk.
    seen: set[tuple[torch.device, int]] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().contiguous()
        if plain.layout is torch.strided and plain.numel():
            memory = (plain.device, plain.untyped_storage().data_ptr())
            if memory in seen:
                plain = plain.clone()
            seen.add(memory)
        yield name, plain


def _load(path: Path) -> dict[str, Tensor]:
    try:
        # Copy from the memory map of the file, because training may delete the file while the tensors are in use.
        return {name: mapped.clone() for name, mapped in safetensors.torch.load_file(path).items()}
    except OSError as error:
        raise unreadable(path, error) from None
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise DamagedCheckpoint(f"{path}: not a safetensors file that can be read: {error}") from None


def _verify(path: Path, name: str, manifest: Manifest) -> None:
    if name.endswith(SUFFIX):
        _refuse_pickle(path / name)
    check_size(path, name, manifest.files[name])
    check_hash(path, name, manifest.files[name])


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise unreadable(path, error) from None
    # A header of 128 (mod 256) bytes begins like a pickle, so check first for the brace of safetensors' header.
    if head[8:] != b"{" and (head.startswith(b"PK\x03\x04") or head[:1] == b"\x80"):
        raise DamagedCheckpoint(f"{path}: a pickle, in spite of its name.\n{_NO_PICKLES}")


def _require_checkpoint_folder(path: Path) -> None:
    if not path.exists():
        raise DamagedCheckpoint(f"{path}: no such checkpoint folder")
    if not path.is_dir():
        if path.suffix in PICKLE_SUFFIXES:
            raise DamagedCheckpoint(f"{path}: a pickled file. {_NO_PICKLES}")
        raise DamagedCheckpoint(f"{path}: a file; expected a checkpoint folder such as checkpoints/step-00001000")
    if not (path / MANIFEST).is_file():
        raise DamagedCheckpoint(_foreign(path))


def _foreign(path: Path) -> str:
    newest = [inner / folder_name(s) for inner in (path / "checkpoints", path) for s in list_steps(inner)[-1:]]
    if newest:
        return (
            f"{path}: contains checkpoints but is not a checkpoint, and no run: no {CONFIG}.\nDid you mean {newest[0]}?"
        )
    names = sorted(entry.name for entry in path.iterdir())
    found = f"It contains {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}." if names else "It is empty."
    message = f"{path}: not a checkpoint of LeanDiT: no {MANIFEST} in it. {found}"
    if any(name.endswith(PICKLE_SUFFIXES) for name in names):
        return f"{message}\n{_NO_PICKLES}"
    return f"{message}\nExpected {MANIFEST}, {STATE}, {CONFIG} and *{SUFFIX} as LeanDiT saves them."
