"""Digests of files and of plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def contents_digest(files: Iterable[Path], root: Path) -> str:
    """Return a digest of files' contents and their paths relative to ``root``, whatever the location of ``root``.

    Raises:
        OSError: if a file cannot be read.
    """
    base = root.resolve()
    paths = {_below(path.resolve(), base): path for path in files}
    digest = hashlib.sha256()
    for name in sorted(paths):
        with paths[name].open("rb") as file:
            digest.update(f"{name}\n".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _below(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name


def canonical(value: Any) -> str:
    """Return a JSON text that is equal for equal values: sorted keys, no spaces; NaN raises ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON text, as hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def seed_from(value: Any) -> int:
    """Return a seed (60 bits) that is equal for equal values (plain JSON data)."""
    return int(digest(value)[:15], 16)
