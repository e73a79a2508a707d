"""Atomic replacement of files, and the rights of temporary files and folders: those that the user's umask leaves."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it is renamed to ``path`` when the block ends without an error.

    Missing folders above it are created, and removed again after an error.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    beside = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(6)}{path.suffix}")
    created = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The kernel applies the umask here; Python's temporary files are for their owner alone.
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        rights = stat.S_IMODE(os.fstat(handle).st_mode)
        os.close(handle)
        created = True
        yield beside
        # Some writers replace the file by one for its owner alone.
        beside.chmod(rights)
        beside.replace(path)
    except OSError as error:
        # The message names the intended file: users do not know the temporary one, and a full disk has no name.
        if not created or error.filename in (str(beside), None):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        if created:
            beside.unlink(missing_ok=True)
        for folder in missing:
            # Only without the file are they empty.
            with suppress(OSError):
                folder.rmdir()


def temporary_folder(root: Path, prefix: str) -> Path:
    """Create a folder with a new name in ``root``, with the rights that the umask leaves, and return it."""
    folder = root / f"{prefix}{secrets.token_hex(6)}"
    folder.mkdir()
    return folder


def share(folder: Path) -> None:
    """Give every file in a folder the folder's own rights to read and write.

    Writers of tensors leave files that their owner alone can read.
    """
    rights = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for path in folder.iterdir():
        path.chmod(rights)
