"""Imports go one way: the contracts of pyproject.toml, the same that `make check` runs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def test_the_import_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    code = lint_imports(config_filename=str(PYPROJECT), no_cache=True)
    assert code == 0, capsys.readouterr().out


def test_a_broken_contract_is_noticed(tmp_path: Path) -> None:
    """The linter's exit code tells: models do import moe, so a contract against it must fail."""
    config = tmp_path / "broken.toml"
    config.write_text(
        '[tool.importlinter]\nroot_package = "leandit"\n[[tool.importlinter.contracts]]\nname = "broken"\n'
        'type = "forbidden"\nsource_modules = ["leandit.models"]\nforbidden_modules = ["leandit.moe"]\n'
    )
    assert lint_imports(config_filename=str(config), no_cache=True) != 0


def test_the_package_ships_its_data_and_its_types() -> None:
    """Every file of the package that is no Python source is covered by package-data."""
    globs = tomllib.loads(PYPROJECT.read_text())["tool"]["setuptools"]["package-data"]["leandit"]
    package = PYPROJECT.parent / "src" / "leandit"
    shipped = {path for glob in globs for path in package.glob(glob)}
    others = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert package / "py.typed" in others
    assert package / "data" / "emoji" / "images.npz" in others
    assert others == shipped
