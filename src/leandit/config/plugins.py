"""Modules from outside the package that register kinds: routers, backbones, tasks, codecs, data sources."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from leandit.errors import LeanDiTError

GROUP = "leandit.kinds"
"""Entry-point group of installed packages: `[project.entry-points."leandit.kinds"]`, `mine = "my_package.router"`."""


@cache
def load_plugins() -> None:
    """Import, once, the modules that installed packages name in `GROUP`; an error names the package."""
    for entry in entry_points(group=GROUP):
        _imported(f"{entry.value} (of the package {entry.dist.name if entry.dist else '?'})", entry.load)


def import_kinds(name: str) -> None:
    """Import a module by its name, or a file by a path that ends in .py, so that it registers its kinds.

    A file can import its neighbours. Raises LeanDiTError if it does not exist or if its import fails.
    """
    if not name.endswith(".py"):
        _imported(name, lambda: import_module(name))
        return
    path = Path(name).resolve()
    if not path.is_file():
        raise LeanDiTError(f"--import: {name}: no such file (now in {Path.cwd()})")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.stem.isidentifier():
        raise LeanDiTError(f"--import: {name}: not a name of a Python module; rename the file")
    if path.stem in sys.modules:
        other = getattr(sys.modules[path.stem], "__file__", None)
        if other is None or Path(other).resolve() != path:
            raise LeanDiTError(f"--import: {name}: there is another module {path.stem}; rename the file")
        return
    sys.path.insert(0, str(path.parent))
    sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
    try:
        _imported(name, lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
    except LeanDiTError:
        del sys.modules[path.stem]
        raise


def _imported(name: str, load: Callable[[], object]) -> None:
    try:
        load()
    except LeanDiTError:
        raise
    except Exception as error:
        raise LeanDiTError(f"{name}: its import failed: {type(error).__name__}: {error}") from error
