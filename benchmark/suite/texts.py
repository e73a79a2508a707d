"""Texts of a suite: names, which select and head rows, and prose, which is only printed."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Final

from pydantic import AfterValidator

LONGEST_NAME: Final = 100
LONGEST_PROSE: Final = 4000

_SURROGATES: Final = re.compile("[\ud800-\udfff]")


def _as_name(text: str) -> str:
    """Return a name in its composed form (NFC), so that names that look alike are the same."""
    if len(text) > LONGEST_NAME:
        raise ValueError(f"got a name of {len(text)} characters, expected at most {LONGEST_NAME}")
    if not text.isprintable() or text != text.strip():
        raise ValueError(f"got {text!a}, expected a name of printable characters without spaces around it")
    return unicodedata.normalize("NFC", text)


def _as_prose(text: str) -> str:
    if len(text) > LONGEST_PROSE:
        raise ValueError(f"got a text of {len(text)} characters, expected at most {LONGEST_PROSE}")
    if _SURROGATES.search(text) or not text.replace("\n", "").replace("\t", "").isprintable():
        raise ValueError(f"got {text[:60]!a}, expected printable characters")
    return text


Name = Annotated[str, AfterValidator(_as_name)]
"""A name, label or heading: at most `LONGEST_NAME` printable characters in one line; it may be empty."""

Prose = Annotated[str, AfterValidator(_as_prose)]
"""A text of at most `LONGEST_PROSE` printable characters, in lines."""


def as_file_name(name: str) -> str:
    """Return the form that a name has in the names of files."""
    return re.sub("[^A-Za-z0-9]", "-", name)
