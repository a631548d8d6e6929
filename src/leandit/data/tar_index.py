"""The positions of the members of a tar file, read once from its headers. Dangerous and damaged files are refused."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from leandit.errors import LeanDiTError

MAX_MEMBER_BYTES = 512 * 1024**2
MAX_TEXT_BYTES = 1024**2
# pyd is WebDataset's name for a pickle. npy files are checked by their header.
_PICKLES = frozenset({"pkl", "pickle", "pyd", "pt", "pth", "ckpt", "joblib", "dill"})


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside a tar file."""

    name: str
    offset: int
    size: int


def scan_tar(path: Path) -> list[Member]:
    """Return all files in the order of the archive.

    Raises LeanDiTError for an archive that is truncated, damaged or compressed, and for members that are links,
    devices or pickles, or whose name points outside the archive.
    """
    try:
        return list(_members(path))
    except tarfile.TarError as error:
        raise LeanDiTError(f"{path}: {_what_is_wrong(path, error)}") from None
    except OSError as error:
        raise LeanDiTError(f"{path}: cannot be read: {error}") from None


def read_member(path: Path, member: Member, text: bool = False) -> bytes:
    """Return the bytes of one member. Raises LeanDiTError if it is too large or the file has changed since the scan."""
    limit = MAX_TEXT_BYTES if text else MAX_MEMBER_BYTES
    if member.size > limit:
        raise LeanDiTError(f"{path}/{member.name}: {member.size} bytes, more than {limit}; shrink or remove it")
    try:
        with path.open("rb") as file:
            file.seek(member.offset)
            data = file.read(member.size)
    except OSError as error:
        raise LeanDiTError(f"{path}: cannot be read: {error}; do not move or change shards during a run") from None
    if len(data) != member.size:
        raise LeanDiTError(f"{path}: has become shorter since it was indexed; restore it and start again")
    return data


def _members(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            if info.isdir():
                continue
            _check(path, info)
            member = Member(info.name.removeprefix("./"), info.offset_data, info.size)
            if member.name.lower().endswith(".npy"):
                _check_array(path, member)
            yield member
        end = tar.offset
    _check_end(path, end)


def _check(path: Path, info: tarfile.TarInfo) -> None:
    name = info.name
    problem = None
    if not info.isreg() or info.issparse():
        problem = "a link" if info.issym() or info.islnk() else "not a plain file (a device, pipe or sparse file)"
    elif PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name or "\0" in name:
        problem = "a name that points outside the archive"
    elif _PICKLES & set(PurePosixPath(name).name.lower().split(".")[1:]):
        problem = "a pickle, which can run code when it is read"
    if problem:
        raise LeanDiTError(f"{path}: member {name!r} is {problem}; create the shard again without it")


def _check_array(path: Path, member: Member) -> None:
    """Refuse an array of objects, which numpy stores as a pickle."""
    with path.open("rb") as file:
        file.seek(member.offset)
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            objects = read(file)[2].hasobject
        # numpy's reader parses the header as Python source, which can fail in many ways. Nothing here reads the array,
        # but an array that cannot be checked is refused.
        except Exception:
            objects = True
    if objects:
        raise LeanDiTError(
            f"{path}: member {member.name!r} is an array of objects, which is a pickle and can run code when it is "
            "read (or it is damaged); create the shard again without it"
        )


def _check_end(path: Path, end: int) -> None:
    """Check that the archive ends with blocks of zeros: tarfile treats a damaged header or a lost rest as the end."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise LeanDiTError(f"{path}: truncated: the end of the archive is missing; download it again")
    if any(block):
        raise LeanDiTError(f"{path}: damaged at byte {end}; download it again")


def _what_is_wrong(path: Path, error: tarfile.TarError) -> str:
    with path.open("rb") as file:
        start = file.read(6)
    packed = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
    for magic, name in packed.items():
        if start.startswith(magic):
            return f"compressed with {name}, which allows no random access; unpack it to a plain .tar first"
    if "unexpected end" in str(error):
        return "truncated: the end of the archive is missing; download it again"
    return f"not a tar file, or a damaged one ({error}); download it again"
