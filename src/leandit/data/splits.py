"""The folders of a data set that is split: train beside val, validation or test."""

from __future__ import annotations

from leandit.config.paths import user_path
from leandit.errors import LeanDiTError

_TRAIN = ("train", "training")
_VALIDATION = ("validation", "val", "valid", "dev")
_TEST = ("test", "testing")


def choose_split(path: str, key: str) -> str:
    """Return the part of a split folder that a setting means, and the path of any other folder as it is.

    A folder is split if all its sub-folders are named like parts and one of them is train. data.source is train, and
    data.validation is validation, or test if there is no validation. Raises LeanDiTError if that part is missing.
    """
    root = user_path(path, f"{key}.path")
    if not root.is_dir():
        return path
    names = {entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    if not names & set(_TRAIN) or len(names) < 2 or names - {*_TRAIN, *_VALIDATION, *_TEST}:
        return path
    wanted = {"data.source": _TRAIN, "data.validation": (*_VALIDATION, *_TEST)}.get(key, ())
    found = next((name for name in wanted if name in names), None)
    if found is None:
        parts = ", ".join(sorted(names))
        raise LeanDiTError(f"{root}: is split into {parts}; set {key}.path to one of these folders")
    return str(root / found)
