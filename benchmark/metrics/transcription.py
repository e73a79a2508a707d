"""Whether the words survive: word and character error rates of a speech recogniser on the judged sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jiwer
import numpy as np
import pandas as pd

from advser.metrics.base import Array, Metric, Need
from advser.metrics.normalisation import normalise
from advser.metrics.recognition import ratio


@dataclass(frozen=True)
class ErrorCounts:
    """Edits (substitutions, deletions and insertions) between what was said and what was recognised.

    Attributes:
        word_errors: edits in words.
        words: words that were said.
        char_errors: edits in characters, a space between words included.
        chars: characters that were said, spaces included.
    """

    word_errors: int
    words: int
    char_errors: int
    chars: int


def count_errors(reference: str, hypothesis: str, language: str) -> ErrorCounts:
    """Count the errors of a transcript, after `normalise` on both sides, with jiwer.

    A clip whose ``reference`` is empty tells nothing about the recogniser: all its counts are 0, and a pooled error
    rate leaves it out.

    Args:
        reference: what was said.
        hypothesis: what was recognised.
        language: ISO 639-1 code.
    """
    said, heard = normalise(reference, language), normalise(hypothesis, language)
    if not said:
        return ErrorCounts(0, 0, 0, 0)
    words, chars = jiwer.process_words(said, heard), jiwer.process_characters(said, heard)
    return ErrorCounts(
        word_errors=words.substitutions + words.deletions + words.insertions,
        words=words.hits + words.substitutions + words.deletions,
        char_errors=chars.substitutions + chars.deletions + chars.insertions,
        chars=chars.hits + chars.substitutions + chars.deletions,
    )


class ErrorRate(Metric):
    """Errors over words or characters said, pooled over clips, as a fraction; insertions can bring it above 1."""

    citation: ClassVar[str] = (
        "A. C. Morris, V. Maier, P. Green: From WER and RIL to MER and WIL, Interspeech 2004, section 2.1."
    )
    needs: ClassVar[frozenset[Need]] = frozenset({"transcripts"})
    higher_is_better: ClassVar[bool] = False
    errors: ClassVar[str]
    """Column of the errors."""
    said: ClassVar[str]
    """Column of the words or characters that were said."""

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): the clip's errors, and the words or characters that were said in it."""
        errors, said = (examples[column].to_numpy(np.float64) for column in (self.errors, self.said))
        return ratio(errors, said, errors, said)


class ErrorRateChange(ErrorRate):
    """Errors on the judged sound less those on the clean one, over what was said; above 0 if the attack adds errors."""

    needs: ClassVar[frozenset[Need]] = frozenset({"transcripts", "attack"})

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        """Return (N, 2): the clip's errors less those when clean, and the words or characters that were said."""
        columns = (self.errors, f"clean_{self.errors}", self.said)
        errors, clean, said = (examples[column].to_numpy(np.float64) for column in columns)
        return ratio(errors - clean, said, errors, clean, said)


class WER(ErrorRate):
    """Word error rate, pooled over clips, as a fraction."""

    title: ClassVar[str] = "WER"
    errors: ClassVar[str] = "word_errors"
    said: ClassVar[str] = "words"


class CER(ErrorRate):
    """Character error rate, pooled over clips, as a fraction."""

    title: ClassVar[str] = "CER"
    errors: ClassVar[str] = "char_errors"
    said: ClassVar[str] = "chars"


class WERChange(ErrorRateChange):
    """Word error rate less that of the clean clips, as a fraction."""

    title: ClassVar[str] = "ΔWER"
    errors: ClassVar[str] = "word_errors"
    said: ClassVar[str] = "words"


class CERChange(ErrorRateChange):
    """Character error rate less that of the clean clips, as a fraction."""

    title: ClassVar[str] = "ΔCER"
    errors: ClassVar[str] = "char_errors"
    said: ClassVar[str] = "chars"
