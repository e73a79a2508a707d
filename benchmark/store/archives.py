"""Zip archives that somebody else made: unpacked within limits."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from advser.errors import printable

BLOCK: Final = 2**20
"""Bytes that are unpacked at a time."""

MOST: Final = 100_000
"""Files in an archive."""

_ENCRYPTED: Final = 0x1
_BROKEN: Final = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, NotImplementedError,
    ValueError, OverflowError,
)  # fmt: skip
"""What `zipfile` raises for archives that it cannot read."""


class ArchiveError(Exception):
    """An archive that cannot be used; the message says what it has, to follow ``got``."""


def unpack(archive: Path, place_of: Callable[[str], Path | None], largest: int) -> list[Path]:
    """Unpack the wanted members of an archive, and return the files.

    The archive's own sizes are checked before anything is written. `zipfile` writes no more than they say.

    Args:
        archive: a zip archive.
        place_of: returns where to write a member, or None to leave it out; it must allow no place outside a folder.
        largest: bytes of all wanted members together.

    Raises:
        ArchiveError: if the archive is unreadable, encrypted or too large, or two members have one place.
        OSError: if the archive cannot be opened, or a file cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            wanted = [
                (member, place)
                for member in opened.infolist()
                if not member.is_dir() and (place := place_of(member.filename)) is not None
            ]
            _check([member for member, _ in wanted], [place for _, place in wanted], largest)
            for member, place in wanted:
                place.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, place.open("wb") as target:
                    while block := source.read(BLOCK):
                        target.write(block)
    except _BROKEN as error:
        raise ArchiveError(f"no readable archive ({printable(str(error), 120)})") from None
    return [place for _, place in wanted]


def _check(members: list[zipfile.ZipInfo], places: list[Path], largest: int) -> None:
    if len(members) > MOST:
        raise ArchiveError(f"an archive of more than {MOST} files")
    if sum(member.file_size for member in members) > largest:
        raise ArchiveError(f"an archive of more than {_size(largest)} unpacked")
    if encrypted := [member for member in members if member.flag_bits & _ENCRYPTED]:
        raise ArchiveError(f"an archive with the encrypted member '{printable(encrypted[0].filename, 80)}'")
    files = {*places}
    if len(files) < len(places) or any(folder in files for place in files for folder in place.parents):
        raise ArchiveError("an archive with two members of one name")


def _size(number: int) -> str:
    return f"{number >> 20} MiB" if number >= 2**20 else f"{number} bytes"
