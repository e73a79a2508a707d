"""Normalisation of reference and transcript to one spelling, so that only misrecognised words count as errors."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

NUMBERS: Final[dict[str, str]] = {
    "de": "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
    "en": "zero one two three four five six seven eight nine ten eleven twelve",
}
"""Words for the numbers from 0 to 12, in order, by language."""

FOLDED: Final[dict[str, dict[int, str]]] = {"de": str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})}
"""Letters that have a second accepted spelling, by language."""

UNSPACED: Final = frozenset({"bo", "dz", "ja", "km", "lo", "my", "th", "zh"})
"""Languages written without spaces between words, so that words cannot be counted."""

NOT_SPOKEN: Final = re.compile(r"\[[\w\s\-/]*\]|<[\w\s\-/]*>")
"""Annotation of a transcription that is no word, such as ``[LAUGHTER]`` or ``<noise>``."""


def normalise(text: str, language: str) -> str:
    """Return ``text`` in lower case, without punctuation, its words separated by one space.

    Letters, their accents and digits stay; an apostrophe stays inside a word (``don't``). Invisible characters
    (category Cf: soft hyphen, joiners, marks of direction) and annotations in brackets (`NOT_SPOKEN`) are left out.
    Every other character separates words, hyphens too. ß becomes ss. In German ä, ö and ü become ae, oe and ue. In
    German and English a number from 0 to 12 that stands alone in digits is spelled out; larger numbers stay digits.

    Args:
        text: any text, in any Unicode normal form.
        language: ISO 639-1 code.
    """
    visible = "".join(char for char in text if unicodedata.category(char) != "Cf")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())
    letters = NOT_SPOKEN.sub(" ", folded).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    spaced = "".join(char if char == "'" or unicodedata.category(char)[0] in "LMN" else " " for char in letters)
    spelled = {str(number): word for number, word in enumerate(NUMBERS.get(language, "").split())}
    words = (word.strip("'") for word in spaced.split())
    return " ".join(spelled.get(word, word) for word in words if word).translate(FOLDED.get(language, {}))
