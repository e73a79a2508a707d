"""Globs as ``--where`` and ``--only`` take them."""

from __future__ import annotations

from fnmatch import fnmatchcase


def matching(text: str, globs: str) -> bool:
    """Tell whether a text matches a glob, or one of several between ``|``: ``none|ifgsm*``. Case counts."""
    return any(fnmatchcase(text, glob) for glob in globs.split("|"))
