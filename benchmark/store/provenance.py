"""Provenance of results: versions of packages, state of the checkout, facts about the machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """Return the provenance for ``run.json``, as plain data.

    Keys: ``advser`` (version), ``python``, ``packages`` (name → version of every dependency, those of extras only if
    installed), ``git`` (``commit`` and ``dirty`` of the AdvSER checkout around the current directory; None outside of a
    checkout), ``host`` (``system``, ``machine``, ``processor``, ``cores``, ``memory_gib``; not its name).
    """
    return {
        "advser": version("advser"),
        "python": platform.python_version(),
        "packages": _packages(),
        "git": _checkout(Path.cwd()),
        "host": _host(),
    }


def _packages() -> dict[str, str]:
    versions = {}
    for requirement in requires("advser") or []:
        name = re.match(r"[\w.-]+", requirement)
        if name is None:
            continue
        try:
            versions[name[0]] = version(name[0])
        except PackageNotFoundError:
            if "extra ==" not in requirement:
                versions[name[0]] = "not installed"
    return dict(sorted(versions.items()))


def _checkout(directory: Path) -> dict[str, Any] | None:
    root = _git(directory, "rev-parse", "--show-toplevel")
    if not root or not _is_advser(Path(root)):
        return None
    commit = _git(directory, "rev-parse", "HEAD")
    state = _git(directory, "status", "--porcelain")
    return None if not commit or state is None else {"commit": commit, "dirty": bool(state)}


def _is_advser(root: Path) -> bool:
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(project.get("project", {}).get("name") == "advser")


def _git(directory: Path, *arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, *arguments], cwd=directory, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else None


def _host() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory(),
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1] if model else platform.processor()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None
