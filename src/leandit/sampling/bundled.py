"""Models that come with the package: checkpoints under leandit/bundled, each in a folder with its name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

_FOLDER = Path(str(resources.files("leandit"))) / "bundled"


def find_run(path: str | Path) -> Path:
    """Return the folder of a run: `path` if it exists, else the bundled model of this name."""
    bundled = _FOLDER / path
    return bundled if not Path(path).exists() and str(path) in _names() else Path(path)


def bundled_name(path: Path) -> str | None:
    """Return the name of the bundled model in this folder; None for any other folder."""
    return path.name if path.parent == _FOLDER else None


def _names() -> list[str]:
    return sorted(folder.name for folder in _FOLDER.iterdir()) if _FOLDER.is_dir() else []
