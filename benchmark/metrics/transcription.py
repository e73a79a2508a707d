"""Word and character error rates of a speech recogniser on the judged sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jiwer
import numpy as np
import pandas as pd

from advser.metrics.base import Array, Metric, Need
from advser.metrics.normalisation import UNSPACED, normalise
from advser.metrics.recognition import ratio


@dataclass(frozen=True)
class ErrorCounts:
    """Edits (substitutions, deletions and insertions) between reference and transcript.

    Attributes:
        word_errors: edits in words.
        words: words of the reference.
        char_errors: edits in characters, spaces included.
        chars: characters of the reference, spaces included.
    """

    word_errors: int
    words: int
    char_errors: int
    chars: int


def count_errors(reference: str, hypothesis: str, language: str) -> ErrorCounts:
    """Return the errors of a transcript, counted by jiwer after `normalise` on both texts.

    With an empty ``reference`` all counts are 0, so that a pooled error rate leaves the clip out. In a language without
    spaces between words (`UNSPACED`) spaces are left out, and the counts of words are 0: it has no word error rate.

    Args:
        reference: spoken words.
        hypothesis: transcript.
        language: ISO 639-1 code.
    """
    reference, hypothesis = normalise(reference, language), normalise(hypothesis, language)
    spaced = language not in UNSPACED
    if not spaced:
        # Some texts separate words for reading, and a recogniser does not.
        reference, hypothesis = reference.replace(" ", ""), hypothesis.replace(" ", "")
    if not reference:
        return ErrorCounts(0, 0, 0, 0)
    words, chars = jiwer.process_words(reference, hypothesis), jiwer.process_characters(reference, hypothesis)
    return ErrorCounts(
        word_errors=words.substitutions + words.deletions + words.insertions if spaced else 0,
        words=words.hits + words.substitutions + words.deletions if spaced else 0,
        char_errors=chars.substitutions + chars.deletions + chars.insertions,
        chars=chars.hits + chars.substitutions + chars.deletions,
    )


class ErrorRate(Metric):
    """Errors over words or characters of the reference, pooled over clips, as a fraction.

    Insertions can raise it above 1.
    """

    citation: ClassVar[str] = (
        "A. C. Morris, V. Maier, P. Green: From WER and RIL to MER and WIL, Interspeech 2004, section 2.1."
    )
    needs: ClassVar[frozenset[Need]] = frozenset({"transcripts"})
    higher_is_better: ClassVar[bool] = False
    errors: ClassVar[str]
    """Column of the errors."""
    total: ClassVar[str]
    """Column of the words or characters of the reference."""

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): the clip's errors, and the words or characters of its reference."""
        errors, total = (examples[column].to_numpy(np.float64) for column in (self.errors, self.total))
        return ratio(errors, total, errors, total)


class ErrorRateChange(ErrorRate):
    """Error rate of the judged sound minus that of the clean sound; above 0 if the attack adds errors."""

    needs: ClassVar[frozenset[Need]] = frozenset({"transcripts", "attack"})

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): the clip's errors minus those when clean, and the words or characters of its reference."""
        columns = (self.errors, f"clean_{self.errors}", self.total)
        errors, clean, total = (examples[column].to_numpy(np.float64) for column in columns)
        return ratio(errors - clean, total, errors, clean, total)


class WER(ErrorRate):
    """Word error rate, pooled over clips, as a fraction."""

    title: ClassVar[str] = "WER"
    errors: ClassVar[str] = "word_errors"
    total: ClassVar[str] = "words"


class CER(ErrorRate):
    """Character error rate, pooled over clips, as a fraction."""

    title: ClassVar[str] = "CER"
    errors: ClassVar[str] = "char_errors"
    total: ClassVar[str] = "chars"


class WERChange(ErrorRateChange):
    """Word error rate minus that of the clean clips, as a fraction."""

    title: ClassVar[str] = "ΔWER"
    errors: ClassVar[str] = "word_errors"
    total: ClassVar[str] = "words"


class CERChange(ErrorRateChange):
    """Character error rate minus that of the clean clips, as a fraction."""

    title: ClassVar[str] = "ΔCER"
    errors: ClassVar[str] = "char_errors"
    total: ClassVar[str] = "chars"
