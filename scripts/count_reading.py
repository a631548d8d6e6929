"""Count the files and lines that a reader of a module needs: its imports within the package, and theirs.

    python scripts/count_reading.py leandit.models.dit [--source src]

A name that a package passes on in its `__init__` counts for the file that defines it. Imports inside functions count.
What is loaded by name at run time, such as the fast versions of an operator, does not.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path


def file_of(module: str, source: Path) -> Path | None:
    """Return the file of a module, or the `__init__` of a package; None if there is none."""
    place = source.joinpath(*module.split("."))
    files = (place / "__init__.py", place.with_suffix(".py"))
    return next((file for file in files if file.exists()), None)


def imports(module: str, source: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) for every `from module import name` of the same package."""
    file = file_of(module, source)
    assert file is not None
    package = module.split(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            yield from ((node.module, alias.name) for alias in node.names)


def defining(module: str, name: str, source: Path) -> str:
    """Return the module that defines `name`, which `module` has or passes on."""
    if file_of(f"{module}.{name}", source):
        return f"{module}.{name}"
    file = file_of(module, source)
    if file and file.name == "__init__.py":
        passed = (origin for origin, known in imports(module, source) if known == name and origin != module)
        origin = next(passed, None)
        return defining(origin, name, source) if origin else module
    return module


def reading(module: str, source: Path) -> dict[str, int]:
    """Return the lines of all modules that a reader of `module` needs."""
    found: dict[str, int] = {}
    ahead = [module]
    while ahead:
        here = ahead.pop()
        file = file_of(here, source)
        if here not in found and file is not None:
            found[here] = len(file.read_text(encoding="utf-8").splitlines())
            ahead += [defining(origin, name, source) for origin, name in imports(here, source)]
    return found


def main() -> None:
    """Print the count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module")
    parser.add_argument("--source", type=Path, default=Path(__file__).resolve().parents[1] / "src")
    options = parser.parse_args()
    found = reading(options.module, options.source)
    for module, lines in sorted(found.items(), key=lambda item: -item[1]):
        print(f"{lines:5d}  {module}")
    print(f"{sum(found.values()):5d}  lines in {len(found)} files")


if __name__ == "__main__":
    main()
