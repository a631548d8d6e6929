"""Imports go one way: the contracts of pyproject.toml, the same that `make check` runs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lint_imports(config: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--config", str(config), "--no-cache"]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_the_import_contracts_hold() -> None:
    result = lint_imports(PYPROJECT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_broken_contract_is_noticed(tmp_path: Path) -> None:
    """Models do import moe, so a contract against that must fail."""
    config = tmp_path / "broken.toml"
    config.write_text(
        '[tool.importlinter]\nroot_package = "leandit"\n[[tool.importlinter.contracts]]\nname = "broken"\n'
        'type = "forbidden"\nsource_modules = ["leandit.models"]\nforbidden_modules = ["leandit.moe"]\n'
    )
    result = lint_imports(config)
    assert result.returncode == 1
    assert "broken BROKEN" in result.stdout


def test_the_package_ships_its_data_and_its_types() -> None:
    """Every file of the package that is no Python source is covered by package-data."""
    globs = tomllib.loads(PYPROJECT.read_text())["tool"]["setuptools"]["package-data"]["leandit"]
    package = PYPROJECT.parent / "src" / "leandit"
    shipped = {path for glob in globs for path in package.glob(glob)}
    others = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert package / "py.typed" in others
    assert package / "data" / "emoji" / "images.npz" in others
    assert others == shipped
