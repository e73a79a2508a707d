"""The rooms: every room is installed, and imports go down only, as the contract of import-linter sees it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from package_copy import copied_package
from places import ROOT

LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"


def test_every_room_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    rooms = {
        ".".join((top, *file.parent.relative_to(ROOT / folder).parts))
        for top, folder in setuptools["package-dir"].items()
        for file in (ROOT / folder).rglob("*.py")
    }
    assert set(setuptools["packages"]) == rooms


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's source, to be linted in place of the installed package."""
    return copied_package(tmp_path)


def lint(package: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT_IMPORTS), "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    return subprocess.run(command, cwd=package.parents[1], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not LINT_IMPORTS.is_file(), reason="import-linter is not installed (extra test)")
@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("threat/budget.py", "from advser.plan import planner"),
        ("results/schema.py", "def later():\n    import advser.leaderboards.write"),
        ("leaderboards/boards/board.py", "from advser.leaderboards.page import site"),
    ],
)
def test_an_import_that_goes_up_breaks_the_contract(file: str, line: str, package: Path) -> None:
    assert lint(package).returncode == 0
    with (package / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    broken = lint(package)
    assert broken.returncode == 1
    assert f"advser.{file.removesuffix('.py').replace('/', '.')} -> " in broken.stdout
