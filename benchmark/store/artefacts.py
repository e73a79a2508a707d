"""The store: what each job made, in one folder an artefact, under a key of all that went into it.

Layout: ``<root>/<first two characters of the key>/<key>/`` with the job's files and ``manifest.json`` (the job, its
seconds, and the SHA-256, size and time of every file). A folder is written beside and renamed, so that it is whole or
absent, also after a kill. A damaged artefact counts as absent and is made anew: one without a manifest, or with a file
whose size or time is not that which it was left with, and whose checksum is not either. What a disk changes by itself
is not seen; who doubts a store takes a fresh one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from platformdirs import user_cache_path

from advser.store.digests import canonical

__affects_results__ = False

MANIFEST = "manifest.json"

UNFINISHED: Final = 7 * 86_400.0
"""Seconds, a week: no job takes longer, and a folder that is being written to may look untouched all the while."""


@dataclass(frozen=True)
class Artefact:
    """A finished artefact: its folder."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What made it, and what it consists of.

        ``job``, ``seconds``, ``files`` (name → SHA-256), ``written`` (name → bytes, and nanoseconds of the last
        change); ``not_applicable`` if it has no meaning.
        """
        loaded: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        return loaded

    @property
    def not_applicable(self) -> str:
        """Why the job has no meaning on its inputs, which is kept like a result; empty if it was done."""
        return str(self.manifest.get("not_applicable", ""))

    def path(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.folder / name

    def json(self, name: str) -> Any:
        """Return the contents of one of its JSON files."""
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def intact(self) -> bool:
        """Tell whether the manifest can be read and every file is as it was written.

        A file that has the size and the time that it was left with is not read: a run looks at thousands. One that was
        written to, copied or touched since has to have the checksum that the manifest names.
        """
        try:
            files: dict[str, str] = self.manifest["files"]
            written: dict[str, list[int]] = self.manifest.get("written", {})
            return all(
                _written(self.folder / name) == written.get(name) or _sha256(self.folder / name) == checksum
                for name, checksum in files.items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False


class Store:
    """Artefacts under ``root``, by key."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Return where the artefact of ``key`` is, or would be."""
        return self.root / key[:2] / key

    def __contains__(self, key: str) -> bool:
        return (self.folder(key) / MANIFEST).is_file()

    def get(self, key: str) -> Artefact:
        """Return the artefact of ``key``.

        Raises:
            KeyError: if there is none.
        """
        if key not in self:
            raise KeyError(key)
        return Artefact(self.folder(key))

    def discard_if_damaged(self, key: str) -> bool:
        """Remove the artefact of ``key`` if it is not intact; return whether an intact one is there."""
        if key in self and self.get(key).intact():
            return True
        if self.folder(key).exists():
            self._remove(key)
        return False

    def _remove(self, key: str) -> None:
        aside = Path(tempfile.mkdtemp(prefix="damaged-", dir=self.root))
        # Another run may have found the damage at the same time.
        with suppress(FileNotFoundError):
            self.folder(key).rename(aside / key)
        shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def create(self, key: str, job: Mapping[str, Any]) -> Iterator[Path]:
        """Yield an empty folder to write an artefact into; it takes its place when the block ends without an error.

        If another process has made the same artefact meanwhile, that one stays.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix="unfinished-", dir=self.root))
        try:
            yield beside
            made = sorted(beside.iterdir())
            files = {path.name: _sha256(path) for path in made}
            manifest = canonical({**job, "files": files, "written": {path.name: _written(path) for path in made}})
            (beside / MANIFEST).write_text(manifest, encoding="utf-8")
            # A temporary folder is its maker's alone; a store may be shared.
            beside.chmod(0o755)
            place = self.folder(key)
            place.parent.mkdir(exist_ok=True)
            try:
                beside.rename(place)
            except OSError:
                if key not in self:
                    raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def sweep(self, older_than: float = UNFINISHED) -> None:
        """Remove what killed processes left behind more than ``older_than`` seconds ago."""
        for left in [*self.root.glob("unfinished-*"), *self.root.glob("damaged-*")]:
            # Another run may sweep at the same time.
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > older_than:
                    shutil.rmtree(left, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def default_store() -> Path:
    """Return where artefacts are kept: ``$ADVSER_STORE``, or a cache of the user's."""
    return Path(os.environ.get("ADVSER_STORE") or user_cache_path("advser") / "store")
