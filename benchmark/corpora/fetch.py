"""Corpora that may be downloaded: into the user's cache, checked by their contents."""

from __future__ import annotations

import re
import sys
import zipfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

from platformdirs import user_cache_path

from advser.errors import InputError
from advser.store.digests import contents_digest

LARGEST = 2**30
"""Bytes that an archive may unpack to."""

BLOCK = 2**20


def fetched(corpus: str, address: str, wanted: re.Pattern[str], digest: str) -> Path:
    """Return the folder with a corpus in the user's cache; download it if it is not there.

    Args:
        corpus: the name in the registry.
        address: of a zip archive.
        wanted: the members that are unpacked, by their whole names; any other is left out.
        digest: of the unpacked files, as `advser.store.digests.contents_digest` makes it.

    Raises:
        InputError: if it cannot be downloaded or unpacked, or if its contents have another digest.
    """
    folder = user_cache_path("advser") / "corpora" / corpus
    if not folder.is_dir():
        _make(corpus, folder.parent)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{corpus}-") as scratch:
            archive, unpacked = Path(scratch, "archive.zip"), Path(scratch, "unpacked")
            _download(corpus, address, archive)
            _unpack(corpus, archive, wanted, unpacked)
            _check(corpus, unpacked, digest, f"what {address} holds")
            _move(unpacked, folder)
    _check(corpus, folder, digest, f"{folder} (delete it to fetch anew)")
    return folder


def _make(corpus: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"corpus '{corpus}': {folder} cannot be made to fetch it to ({error.strerror}); "
            f"say where a copy is with --data {corpus}=DIR"
        ) from error


def _download(corpus: str, address: str, into: Path) -> None:
    from pooch import HTTPDownloader

    try:
        HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=30)(address, into, None)
    except OSError as error:  # every error of requests is one
        raise InputError(
            f"corpus '{corpus}': {address} cannot be fetched ({type(error).__name__}); "
            f"say where a copy is with --data {corpus}=DIR"
        ) from error


def _unpack(corpus: str, archive: Path, wanted: re.Pattern[str], into: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if wanted.fullmatch(member.filename)]
            if sum(member.file_size for member in members) > LARGEST:
                raise InputError(f"corpus '{corpus}': the archive unpacks to more than {LARGEST >> 20} MiB; refused")
            for member in members:
                # No path of the archive is used but for its last two names, which are checked.
                place = into.joinpath(*Path(member.filename).parts[-2:])
                place.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, place.open("wb") as target:
                    while block := source.read(BLOCK):
                        target.write(block)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"corpus '{corpus}': what was fetched is no readable zip archive ({error}); "
            f"say where a copy is with --data {corpus}=DIR"
        ) from error


def _check(corpus: str, folder: Path, digest: str, what: str) -> None:
    found = contents_digest([path for path in folder.rglob("*") if path.is_file()], folder)
    if found != digest:
        raise InputError(
            f"corpus '{corpus}': {what} is not the official corpus (SHA-256 over its files: got {found[:12]}…, "
            f"allowed {digest[:12]}…); say where a copy is with --data {corpus}=DIR"
        )


def _move(made: Path, folder: Path) -> None:
    try:
        made.replace(folder)
    except OSError:
        # Another process was first; what it made is checked like ours.
        if not folder.is_dir():
            raise
