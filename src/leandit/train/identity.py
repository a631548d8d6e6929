"""Which pictures a run is trained on: kept in its checkpoints, compared on resuming."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leandit.data import Source
from leandit.errors import LeanDiTError


def identity(source: Source) -> dict[str, Any]:
    """Return what a checkpoint keeps of the source, as JSON has it."""
    return {
        "class_names": list(source.class_names),
        "pictures": len(source),
        "fingerprint": source.fingerprint,
    }


def check_same_data(run: Path, state: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise LeanDiTError unless the state of a checkpoint was saved with the source of `now`."""
    # A checkpoint from before fingerprints were kept is compared by the rest.
    if all(state.get(name, value) == value for name, value in now.items()):
        return
    before, after = (f"{kept['pictures']} pictures in {len(kept['class_names'])} classes" for kept in (state, now))
    change = "as many, but others, now" if before == after else f"{after} now"
    raise LeanDiTError(
        f"{run}: the data has changed: {before} when the run was stopped, {change}.\n"
        "Put the pictures back as they were, or start a new run in another --out"
    )
