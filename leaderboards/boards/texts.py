"""Texts of others on boards: made harmless for terminals, XML and spreadsheets."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""First characters of a field that spreadsheets compute."""

_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_HARMFUL: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufffe\uffff")
"""Marks that show a text in another order than it has, separators that break lines, and what XML forbids."""


def visible(text: str) -> str:
    """Return a text without characters that control a terminal or that XML forbids; line breaks become spaces."""
    return without_controls(re.sub(r"[\t\n\r\u2028\u2029]", " ", text))


def without_controls(text: str) -> str:
    """Return a text without control characters but tab and line breaks, and without halves of characters."""
    return text if text.isascii() and text.isprintable() else "".join(filter(_is_kept, text))


def _is_kept(character: str) -> bool:
    if character in "\t\n\r":
        return True
    return unicodedata.category(character) not in ("Cc", "Cs") and character not in _HARMFUL


def spreadsheet_field(text: str) -> str:
    """Return a text as a field of a CSV that no spreadsheet computes: an apostrophe begins what would be a formula."""
    # A return alone overwrites the line on a terminal.
    kept = without_controls(re.sub(r"\r\n?", "\n", text))
    formula = kept.startswith(_FORMULA) and not _NUMBER.fullmatch(kept)
    return f"'{kept}" if formula else kept
