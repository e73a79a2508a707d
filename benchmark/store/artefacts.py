"""The store: a folder per artefact of a job, under a key that hashes all inputs of the job.

Layout: ``<root>/<first two characters of the key>/<key>/`` with the job's files and ``manifest.json`` (the job, its
seconds, and the SHA-256, size and modification time of every file). A folder is written under a temporary name and then
renamed, so it is complete or absent, even after a kill. A damaged artefact counts as absent and is recomputed: it lacks
a manifest, or a file has another size or time and another checksum than recorded. Silent corruption by the disk is not
detected; in doubt, use a new store.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from platformdirs import user_cache_path

from advser.store.digests import canonical
from advser.store.files import share, temporary_folder

__affects_results__ = False

MANIFEST = "manifest.json"

UNFINISHED: Final = 7 * 86_400.0
"""Seconds (a week). No job takes longer, and the folder of a running job may look unmodified all that time."""


@dataclass(frozen=True)
class Artefact:
    """A complete artefact in its folder."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The job and the files of the artefact.

        ``job``, ``seconds``, ``files`` (name → SHA-256), ``written`` (name → size in bytes, and modification time in
        nanoseconds); ``not_applicable`` if the job does not apply to its inputs.
        """
        loaded: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        return loaded

    @property
    def not_applicable(self) -> str:
        """Why the job does not apply to its inputs, which is cached like a result; empty if it ran."""
        return str(self.manifest.get("not_applicable", ""))

    def path(self, name: str) -> Path:
        """Return the path of a file of the artefact."""
        return self.folder / name

    def json(self, name: str) -> Any:
        """Return the contents of a JSON file of the artefact."""
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def intact(self) -> bool:
        """Return whether the manifest is readable and every file is unchanged.

        A file with the recorded size and time is not read, since a run checks thousands of files. Any other file must
        have the recorded checksum: it may have been copied or touched.
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
        """Return the folder of the artefact of ``key``, which may not exist."""
        return self.root / key[:2] / key

    def __contains__(self, key: str) -> bool:
        # Keys are read from results of others too: none leads out of the store.
        return key.isalnum() and (self.folder(key) / MANIFEST).is_file()

    def get(self, key: str) -> Artefact:
        """Return the artefact of ``key``.

        Raises:
            KeyError: if there is none.
        """
        if key not in self:
            raise KeyError(key)
        return Artefact(self.folder(key))

    def discard_if_damaged(self, key: str) -> bool:
        """Remove the artefact of ``key`` if it is damaged; return whether the store has an intact one."""
        if key in self and self.get(key).intact():
            return True
        if self.folder(key).exists():
            self._remove(key)
        return False

    def _remove(self, key: str) -> None:
        aside = temporary_folder(self.root, "damaged-")
        # Another run may remove it at the same time.
        with suppress(FileNotFoundError):
            self.folder(key).rename(aside / key)
        shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def create(self, key: str, job: Mapping[str, Any]) -> Iterator[Path]:
        """Yield an empty folder to write an artefact into; it is stored when the block ends without an error.

        If another process stores the same artefact first, that artefact stays.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        beside = temporary_folder(self.root, f"unfinished-{_here()}-{os.getpid()}-")
        try:
            yield beside
            paths = sorted(beside.iterdir())
            files = {path.name: _sha256(path) for path in paths}
            manifest = canonical({**job, "files": files, "written": {path.name: _written(path) for path in paths}})
            (beside / MANIFEST).write_text(manifest, encoding="utf-8")
            # A store may be shared between users.
            share(beside)
            place = self.folder(key)
            place.parent.mkdir(exist_ok=True)
            try:
                beside.rename(place)
            except OSError:
                if key not in self:
                    raise
        except OSError as error:
            if error.filename is None:
                # A full disk has no name.
                raise OSError(error.errno, error.strerror or str(error), str(self.root)) from error
            raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def sweep(self, older_than: float = UNFINISHED) -> None:
        """Remove temporary folders of killed processes: those of this machine, and others older than ``older_than``."""
        for left in [*self.root.glob("unfinished-*"), *self.root.glob("damaged-*")]:
            # Another run may sweep at the same time.
            with suppress(FileNotFoundError):
                if _is_abandoned(left.name) or time.time() - left.stat().st_mtime > older_than:
                    shutil.rmtree(left, ignore_errors=True)


def _here() -> str:
    """Return the name of this machine as a part of a file name."""
    return re.sub("[^A-Za-z0-9]", "_", platform.node())[:40] or "localhost"


def _is_abandoned(name: str) -> bool:
    """Return whether an unfinished folder belongs to a process of this machine that is no more."""
    match = re.fullmatch(rf"unfinished-{_here()}-(\d+)-\w+", name)
    if match is None:
        return False
    try:
        os.kill(int(match[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _sha256(path: Path) -> str:
    # A pipe would wait for a writer.
    if not path.is_file():
        raise OSError(f"{path}: no regular file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def default_store() -> Path:
    """Return the root of the default store: ``$ADVSER_STORE``, or a folder of the user's cache."""
    return Path(os.environ.get("ADVSER_STORE") or user_cache_path("advser") / "store")
