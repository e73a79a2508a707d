"""Bring what was said and what was recognised into one spelling, so that only misheard words count as errors."""

from __future__ import annotations

import unicodedata
from typing import Final

NUMBERS: Final[dict[str, tuple[str, ...]]] = {
    "de": tuple("null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf".split()),
    "en": tuple("zero one two three four five six seven eight nine ten eleven twelve".split()),
}
"""Words for the numbers from 0 to 12, by language."""

FOLDED: Final[dict[str, dict[int, str]]] = {"de": str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})}
"""Letters that have a second accepted spelling, by language."""


def normalise(text: str, language: str) -> str:
    """Return ``text`` in lower case, without punctuation, its words separated by one space.

    Letters, their accents and digits stay; an apostrophe stays inside a word (``don't``); every other character
    separates words, hyphens too. ß becomes ss. In German ä, ö and ü become ae, oe and ue. In German and English a
    word that is a whole number from 0 to 12 in digits is spelled out; larger numbers stay digits.

    Args:
        text: any text, in any Unicode normal form.
        language: ISO 639-1 code.
    """
    letters = unicodedata.normalize("NFKC", text).casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    spaced = "".join(one if one == "'" or unicodedata.category(one)[0] in "LMN" else " " for one in letters)
    numbers = NUMBERS.get(language, ())
    words = (_spelled(word.strip("'"), numbers) for word in spaced.split())
    return " ".join(filter(None, words)).translate(FOLDED.get(language, {}))


def _spelled(word: str, numbers: tuple[str, ...]) -> str:
    is_small = word.isascii() and word.isdigit() and int(word) < len(numbers)
    return numbers[int(word)] if is_small else word
