"""The files of a set that is cut into shards: names and wildcards to paths, and nothing that is no local file."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from leandit.data.paths import user_path
from leandit.errors import LeanDiTError, NotFoundError


def find_shards(patterns: Sequence[str], suffix: str) -> list[Path]:
    """Return the files, each once: patterns in the order given, what a wildcard matches sorted by name."""
    paths = dict.fromkeys(path for pattern in patterns for path in _expand(pattern, suffix))
    return list(paths)


def _expand(pattern: str, suffix: str) -> list[Path]:
    _check_local(pattern)
    expanded = str(user_path(pattern, "data.source.paths"))
    names = sorted(glob.glob(expanded, recursive=True)) if glob.has_magic(expanded) else [expanded]
    if not names:
        raise NotFoundError(
            f"{pattern}: no file matches (now in {Path.cwd()}); correct data.source.paths{_hint(pattern)}"
        )
    return [_check_file(Path(name), suffix, pattern) for name in names]


def _check_local(pattern: str) -> None:
    if pattern.startswith("pipe:"):
        raise LeanDiTError(f"{pattern}: pipe: runs a command, which a data set must not; give files on this machine")
    if "://" in pattern:
        raise LeanDiTError(f"{pattern}: an address, not a file; fetch the shards first and give their paths")


def _check_file(path: Path, suffix: str, pattern: str) -> Path:
    if path.is_dir():
        raise LeanDiTError(f"{path}: a folder; name the files in it, such as {path}/*{suffix}")
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file (now in {Path.cwd()}); correct data.source.paths{_hint(pattern)}")
    if path.stat().st_size == 0:
        raise LeanDiTError(f"{path}: empty file; fetch it again or remove it")
    return path.resolve()


def _hint(pattern: str) -> str:
    if "{" in pattern:
        return " (braces such as {000..009} are not expanded here: use * and ?, or list the files)"
    return ""
