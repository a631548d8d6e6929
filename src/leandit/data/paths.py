"""Files as users name them in a configuration: a plain file, or the shards of a data set with wildcards."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from leandit.config.paths import user_path
from leandit.errors import LeanDiTError, NotFoundError


def check_plain_file(path: Path) -> None:
    """Raise LeanDiTError if the path exists and is no plain file: reading a pipe or a device may never end."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise LeanDiTError(f"{path}: {kind}, not a plain file; give a file")


def find_shards(patterns: Sequence[str], suffix: str) -> list[Path]:
    """Return the files, each once, in the order of the patterns. The matches of a wildcard are sorted by name.

    Raises LeanDiTError for anything that is not a file on the local disk.
    """
    paths = dict.fromkeys(path for pattern in patterns for path in _expand(pattern, suffix))
    return list(paths)


def _expand(pattern: str, suffix: str) -> list[Path]:
    if pattern.startswith("pipe:"):
        raise LeanDiTError(f"{pattern}: pipe: runs a command, which is not allowed; give files on this machine")
    if "://" in pattern:
        raise LeanDiTError(f"{pattern}: an address, not a file; download the shards first and give their paths")
    expanded = str(user_path(pattern, "data.source.paths"))
    names = sorted(glob.glob(expanded, recursive=True)) if glob.has_magic(expanded) else [expanded]
    if not names:
        raise NotFoundError(
            f"{pattern}: no file matches (now in {Path.cwd()}); correct data.source.paths{_hint(pattern)}"
        )
    return [_check_file(Path(name), suffix, pattern) for name in names]


def _check_file(path: Path, suffix: str, pattern: str) -> Path:
    if path.is_dir():
        raise LeanDiTError(f"{path}: a folder; give the files in it, such as {path}/*{suffix}")
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file (now in {Path.cwd()}); correct data.source.paths{_hint(pattern)}")
    if path.stat().st_size == 0:
        raise LeanDiTError(f"{path}: empty file; download it again or remove it")
    return path.resolve()


def _hint(pattern: str) -> str:
    if "{" in pattern:
        return " (braces such as {000..009} are not supported: use * and ?, or list the files)"
    return ""
