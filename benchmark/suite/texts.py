"""Texts of a suite: names and headings, of which rows and files are made, and prose."""

from __future__ import annotations

import re
import reprlib
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

MAXIMAL_NAME = 100
"""Bytes (UTF-8) in a name or label: file names of boards, figures and sound are made of them."""

MAXIMAL_TITLE = 200
"""Characters in a heading."""


def _writable(text: str) -> str:
    """Return a text without halves of surrogate pairs, which no file can hold."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"got {reprlib.repr(text)}, expected text without halves of surrogate pairs")
    return text


def _one_line(text: str) -> str:
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in _writable(text)):
        raise ValueError(f"got {reprlib.repr(text)}, expected one line without control characters")
    return text


def _short(text: str) -> str:
    if len(_one_line(text).encode()) > MAXIMAL_NAME:
        raise ValueError(f"got {reprlib.repr(text)}, expected at most {MAXIMAL_NAME} bytes")
    return text


Label = Annotated[str, AfterValidator(_short)]
"""A text that names rows, columns or files: one line of at most `MAXIMAL_NAME` bytes; possibly empty."""

Name = Annotated[Label, Field(min_length=1)]
"""A `Label` that is not empty."""

Title = Annotated[str, AfterValidator(_one_line), Field(max_length=MAXIMAL_TITLE)]
"""A heading: one line."""

Prose = Annotated[str, AfterValidator(_writable)]
"""A text of any number of lines."""


def file_part(part: str) -> str:
    """Return the name of a part as file names have it."""
    return re.sub("[^A-Za-z0-9]", "-", part)
