"""Digests of files by their contents, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def contents_digest(files: Iterable[Path], root: Path) -> str:
    """Hash the contents of files and their places below ``root``; where ``root`` is and how it is written is no matter.

    Raises:
        OSError: if a file cannot be read.
    """
    base = root.resolve()
    found = {_below(path.resolve(), base): path for path in files}
    digest = hashlib.sha256()
    for place in sorted(found):
        with found[place].open("rb") as file:
            digest.update(f"{place}\n".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _below(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name


def canonical(value: Any) -> str:
    """Return JSON text that is the same for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON text, as hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def seed_from(value: Any) -> int:
    """Return a seed (60 bits) that is the same for equal values (plain JSON data)."""
    return int(digest(value)[:15], 16)
