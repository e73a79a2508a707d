"""Names of groups (labels, speakers, genders, sentences, splits): one spelling for each, and no contradictions."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

from advser.corpora.base import shortlist
from advser.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

NAMES: Final = ("label", "speaker", "gender", "text", "split")
"""Columns whose values name groups of clips."""

DISTINCT: Final = ("label", "speaker")
"""Columns whose values must differ in more than case, width and spaces; sentences and splits never become classes."""

NOT_A_NUMBER: Final = frozenset({"nan", "NaN", "NAN", "<NA>", "NaT", "#N/A"})
"""Texts of a missing value that are no words."""

MISSING: Final = NOT_A_NUMBER | {"None", "NULL", "null", "N/A", "n/a"}
"""Texts that other programs write for a missing value. ``NA`` and ``none`` may be names."""


def spelling(name: str) -> str:
    """Return a name in Unicode normal form C, without invisible characters, its words separated by one space."""
    visible = "".join(char for char in name if unicodedata.category(char) != "Cf")
    return " ".join(unicodedata.normalize("NFC", visible).split())


def with_one_spelling(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a corpus with every name in its `spelling`.

    Raises:
        InputError: if a name stands for a missing value; two labels or speakers differ only in case, width or spaces;
            or a speaker has two genders.
    """
    frame = frame.assign(**{column: frame[column].map(spelling) for column in NAMES if column in frame})
    for column in (name for name in NAMES if name in frame):
        _refuse_missing(frame, column)
    for column in (name for name in DISTINCT if name in frame):
        _refuse_alike(frame[column].unique().tolist(), column)
    _refuse_two_genders(frame)
    return frame


def refuse_repeated(clips: pd.Series, places: list[str]) -> None:
    """Raise InputError if two rows have one clip name; ``places``: the file of each row."""
    again = clips.duplicated(keep=False)
    for clip, of_clip in clips[again].groupby(clips, sort=False):
        files = shortlist(sorted({places[row] for row in of_clip.index}))
        raise InputError(f"clip '{clip}': got {len(of_clip)} rows ({files}), expected each utterance once")


def _refuse_missing(frame: pd.DataFrame, column: str) -> None:
    missing = frame[column].isin(NOT_A_NUMBER if column == "text" else MISSING)
    if missing.any():
        name, clips = frame.loc[missing, column].iloc[0], shortlist(frame.loc[missing, "clip"].tolist(), 3)
        raise InputError(f"{column}: got '{name}' for {clips}, expected a {column}, or an empty value if it is unknown")


def _refuse_alike(names: list[str], column: str) -> None:
    first: dict[str, str] = {}
    for name in sorted(names):
        folded = "".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())
        other = first.setdefault(folded, name)
        if other != name:
            raise InputError(f"{column}: got '{other}' and '{name}', which look alike, expected one spelling")


def _refuse_two_genders(frame: pd.DataFrame) -> None:
    if not {"speaker", "gender"} <= set(frame):
        return
    known = frame[(frame["speaker"] != "") & (frame["gender"] != "")]
    for speaker, genders in known.groupby("speaker")["gender"]:
        if genders.nunique() > 1:
            clips = shortlist([known.loc[rows.index[0], "clip"] for _, rows in genders.groupby(genders)])
            listed = " and ".join(sorted(set(genders)))
            raise InputError(f"speaker '{speaker}': got gender {listed} ({clips}), expected one gender")
