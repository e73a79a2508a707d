"""Download of free corpora into the user's cache, verified by a digest of their contents."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from platformdirs import user_cache_path

from advser.errors import InputError
from advser.store.archives import ArchiveError, unpack
from advser.store.digests import contents_digest

LARGEST = 2**30
"""Largest size of an unpacked archive in bytes."""


def fetch_archive(corpus: str, address: str, wanted: re.Pattern[str], digest: str) -> Path:
    """Return the folder with a corpus in the user's cache; download it first if necessary.

    Args:
        corpus: its name in the registry.
        address: URL of a zip archive.
        wanted: pattern of the whole names of the members to unpack.
        digest: `advser.store.digests.contents_digest` of the unpacked files.

    Raises:
        InputError: if the archive cannot be downloaded or unpacked, or its contents have another digest.
    """
    folder = user_cache_path("advser") / "corpora" / corpus
    if not folder.is_dir():
        _create(corpus, folder.parent)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{corpus}-") as scratch:
            archive, unpacked = Path(scratch, "archive.zip"), Path(scratch, "unpacked")
            _download(corpus, address, archive)
            _unpack(corpus, archive, wanted, unpacked)
            _check(corpus, unpacked, digest, f"the archive of {address}")
            _move(unpacked, folder)
    _check(corpus, folder, digest, f"{folder} (delete it to download the corpus again)")
    return folder


def _create(corpus: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"corpus '{corpus}': {folder}: got '{error.strerror}', expected a folder that can be created, "
            f"or a copy with --data {corpus}=DIR"
        ) from error


def _download(corpus: str, address: str, into: Path) -> None:
    from pooch import HTTPDownloader

    try:
        HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=30)(address, into, None)
    except OSError as error:  # the base of every error of requests
        raise InputError(
            f"corpus '{corpus}': {address}: got {type(error).__name__}, expected a download, "
            f"or a copy with --data {corpus}=DIR"
        ) from error


def _unpack(corpus: str, archive: Path, wanted: re.Pattern[str], into: Path) -> None:
    def place(name: str) -> Path | None:
        # The pattern checks the last two names of a path, so no file lands outside the folder.
        return into.joinpath(*Path(name).parts[-2:]) if wanted.fullmatch(name) else None

    try:
        unpack(archive, place, LARGEST)
    except ArchiveError as error:
        raise InputError(
            f"corpus '{corpus}': the download: got {error}, expected the official zip archive, "
            f"or a copy with --data {corpus}=DIR"
        ) from None


def _check(corpus: str, folder: Path, digest: str, origin: str) -> None:
    actual = contents_digest([path for path in folder.rglob("*") if path.is_file()], folder)
    if actual != digest:
        raise InputError(
            f"corpus '{corpus}': {origin}: got files with SHA-256 {actual[:12]}…, expected the official corpus "
            f"with {digest[:12]}…, or a copy with --data {corpus}=DIR"
        )


def _move(unpacked: Path, folder: Path) -> None:
    try:
        unpacked.replace(folder)
    except OSError:
        # Another process was faster; its folder is verified like ours.
        if not folder.is_dir():
            raise
