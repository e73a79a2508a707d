"""Names of files that somebody else wrote: each is checked before it becomes a path."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, Final

from advser.errors import InputError, printable

LONGEST_NAME: Final = 200
"""Bytes of one name; file systems allow 255, and a temporary file beside it needs some."""

DEEPEST: Final = 16
"""Names in a path."""


def inside(folder: Path, name: Any, place: str) -> Path:
    """Return the path of a file in ``folder`` that a text of others names.

    Args:
        folder: the folder, which may itself be a link.
        name: the text: a relative path with ``/``.
        place: where the name was read, for the message.

    Raises:
        InputError: if it is no plain relative path, or a link would lead out of the folder.
    """
    parts = name.split("/") if isinstance(name, str) else []
    if not 1 <= len(parts) <= DEEPEST or not all(map(_is_plain, parts)):
        raise InputError(f"{place}: got the name {_shown(name)}, expected a name of a file in {folder}")
    return unlinked(folder, "/".join(parts), place)


def unlinked(folder: Path, name: str, place: str) -> Path:
    """Return the path of ``name`` in ``folder``.

    Raises:
        InputError: if the path, or a folder above it in ``folder``, is a symbolic link.
    """
    path = folder
    for part in PurePosixPath(name).parts:
        path /= part
        if path.is_symlink():
            raise InputError(f"{place}: got {path}, a link, expected a file or folder of its own")
    return path


def _is_plain(part: str) -> bool:
    """Return whether a part of a path names a file on every system, and nothing else."""
    odd = not part.isprintable() or any(character in '\\:*?"<>|' for character in part)
    return part not in ("", ".", "..") and not odd and len(part.encode("utf-8", "surrogatepass")) <= LONGEST_NAME


def _shown(name: Any) -> str:
    return f"'{printable(name, 80)}'" if isinstance(name, str) else printable(repr(name), 80)
