"""Confinement: what a process that runs a plugin's code may read and write. It cannot be lifted again."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/opt/intel", "/proc", "/sys", "/run/nvidia-persistenced")
"""Folders of the system's libraries, and of its description."""

_DEVICES: Final = "/dev"


def by_kernel() -> bool:
    """Return whether the kernel enforces the confinement (Landlock, Linux 5.13 and later)."""
    if sys.platform != "linux":
        return False
    from landlock import LandlockError, landlock_abi_version

    try:
        return bool(landlock_abi_version() >= 1)
    except (OSError, LandlockError):
        return False


def confine(reads: Iterable[Path], writes: Iterable[Path], lists: Iterable[Path] = ()) -> None:
    """Let this process read nothing but Python, its libraries and some paths, and write nothing but some folders.

    The kernel enforces it (`by_kernel`): for all code of this process, and of those that it starts. Elsewhere an audit
    hook does, for files that Python's own functions open: files that native code opens escape it.

    Args:
        reads: files and folders, with all in them.
        writes: folders, with all in them; they may be read too.
        lists: folders whose names may be read, without the files: where Python looks for modules.
    """
    readable = [path.resolve() for path in (*_libraries(), *reads) if path.exists()]
    writable = [path.resolve() for path in writes]
    if by_kernel():
        _by_kernel(readable, writable, [path.resolve() for path in lists])
    else:
        sys.addaudithook(_hook(readable, writable))


def _libraries() -> list[Path]:
    """Return the folders of the system, of Python, of installed distributions, and of AdvSER."""
    rooms = ("advser", *(f"advser.{room}" for room in ("attacks", "defenses", "models", "leaderboards")))
    places = [place for room in rooms for spec in [find_spec(room)] if spec for place in _locations(spec)]
    return [Path(place) for place in (*_SYSTEM, sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *places)]


def _locations(spec: Any) -> list[str]:
    return [str(place) for place in spec.submodule_search_locations or () if Path(place).is_dir()]


def _by_kernel(readable: list[Path], writable: list[Path], listable: list[Path]) -> None:
    from landlock import FSAccess, Ruleset

    rules = Ruleset()
    reading = FSAccess.READ_FILE | FSAccess.READ_DIR | FSAccess.EXECUTE
    for path in readable:
        rules.allow(path, rules=reading if path.is_dir() else FSAccess.READ_FILE)
    for path in listable:
        rules.allow(path, rules=FSAccess.READ_DIR)
    rules.allow(_DEVICES, *writable)
    rules.apply()


def _hook(readable: list[Path], writable: list[Path]) -> Any:
    prefixes = tuple(f"{path}{os.sep}" for path in (*readable, *writable, Path(_DEVICES)))
    exact = {str(path) for path in (*readable, *writable)}

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path not in exact and not path.startswith(prefixes):
                raise PermissionError(13, "Permission denied", path)

    return refuse
