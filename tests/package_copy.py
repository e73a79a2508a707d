"""A copy of the package's source, which a command finds before the installed package."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import advser


def copied_package(folder: Path) -> Path:
    """Copy the package to ``folder``/path/advser, without the published results, and return that folder."""
    into = folder / "path" / "advser"
    ignored = shutil.ignore_patterns("__pycache__", "published")
    shutil.copytree(Path(advser.__file__).parent, into, ignore=ignored)
    for name in ("attacks", "defenses", "leaderboards", "models"):
        source = Path(str(importlib.import_module(f"advser.{name}").__file__)).parent
        shutil.copytree(source, into / name, ignore=ignored, dirs_exist_ok=True)
    return into
