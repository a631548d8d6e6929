"""drawing.json: what the pictures in a folder were drawn from, so that drawings are never mixed or overwritten."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leandit.errors import LeanDiTError
from leandit.run.durable import replace_file
from leandit.run.weights import checkpoints_of
from leandit.sampling.load import LoadedRun

DRAWING = "drawing.json"


def weights_hash(run: LoadedRun) -> str | None:
    """Return the SHA-256 of the file of the run's weights, or None if training has deleted the checkpoint since."""
    found = (each for each in checkpoints_of(run.path) if each.step == run.step)
    checkpoint = next(found, None)
    return None if checkpoint is None else checkpoint.manifest.files[f"{run.weights}.safetensors"].sha256


def claim_folder(out: Path, given: bool, facts: Mapping[str, Any]) -> Path:
    """Create a folder for a drawing, write its record there, and return it.

    `facts` are JSON values: everything that decides the pictures. A folder with the same record may be used again,
    because the same drawing gives the same pictures. If `out` has other contents, it is an error if the user `given`
    it; otherwise the first free of OUT-2, OUT-3, ... is used. Raises LeanDiTError, or OSError if it cannot be written.
    """
    facts = json.loads(json.dumps(facts))
    if given:
        if (problem := _taken(out, facts)) is not None:
            raise LeanDiTError(f"--out {out}: {problem}; choose another --out, so that nothing is mixed or overwritten")
    else:
        numbered = (out.with_name(f"{out.name}-{number}") for number in itertools.count(2))
        out = next(folder for folder in itertools.chain([out], numbered) if _taken(folder, facts) is None)
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / DRAWING, (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())
    return out


def _taken(out: Path, facts: Mapping[str, Any]) -> str | None:
    """Return what speaks against the folder, or None."""
    if not out.exists():
        return None
    names = sorted(path.name for path in out.iterdir())
    if not names:
        return None
    if DRAWING not in names:
        return f"the folder is not empty (it has {', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
    try:
        there = json.loads((out / DRAWING).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return f"its {DRAWING} cannot be read"
    if there == facts:
        return None
    keys = there.keys() | facts.keys() if isinstance(there, dict) else {"everything"}
    other = [key for key in sorted(keys) if not isinstance(there, dict) or there.get(key) != facts.get(key)]
    return f"contains another drawing (other {', '.join(other)})"
