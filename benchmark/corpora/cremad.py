"""Crowd-sourced Emotional Multimodal Actors Dataset (CREMA-D)."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final, Literal

from advser.audio.files import is_pointer
from advser.audio.pcm import SAMPLE_RATE
from advser.corpora.base import require_folder, shortlist
from advser.corpora.filenames import FileNameCorpus, find_folders
from advser.corpora.rows import Row
from advser.errors import InputError
from advser.plugins.parameters import parameter

LABELS: Final = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
"""Third part of a file name → the emotion that the actor acted."""

TEXTS: Final = {
    "DFA": "Don't forget a jacket.",
    "IEO": "It's eleven o'clock.",
    "IOM": "I'm on my way to the meeting.",
    "ITH": "I think I have a doctor's appointment.",
    "ITS": "I think I've seen this before.",
    "IWL": "I would like a new alarm clock.",
    "IWW": "I wonder what this is about.",
    "MTI": "Maybe tomorrow it will be cold.",
    "TAI": "The airplane is almost full.",
    "TIE": "That is exactly what happened.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
"""Second part of a file name → sentence."""

ACTORS: Final = tuple(str(actor) for actor in range(1001, 1092))

SILENT: Final = "1076_MTI_SAD_XX"
"""The clip without sound, according to the corpus's own README."""

DEMOGRAPHICS: Final = "VideoDemographics.csv"
GENDERS: Final = {"Male": "m", "Female": "f"}


class CREMAD(FileNameCorpus):
    """CREMA-D: 91 actors (48 men, 43 women), twelve English sentences, six emotions, 7441 clips with sound."""

    title: ClassVar[str] = "CREMA-D"
    licence: ClassVar[str] = "Open Database License 1.0; contents under the Database Contents License 1.0"
    source: ClassVar[str] = "git lfs clone https://github.com/CheyneyComputerScience/CREMA-D"
    citation: ClassVar[str] = (
        "H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova, R. Verma: CREMA-D: Crowd-sourced Emotional "
        "Multimodal Actors Dataset. IEEE Transactions on Affective Computing 5(4), 377-390, 2014."
    )
    caveat: ClassVar[str] = f"CREMA-D without {SILENT}, which holds no sound: 7441 of 7442 clips."
    name: ClassVar[str] = "cremad"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        # Copies from before October 2022 have a file 1040_ITH_SAD_X.wav.
        rf"({'|'.join(ACTORS)})_({'|'.join(TEXTS)})_({'|'.join(LABELS)})_(?:LO|MD|HI|XX?)\.wav"
    )
    naming: ClassVar[str] = (
        f"names such as 1001_DFA_ANG_XX.wav: actor 1001 to 1091, sentence {'|'.join(TEXTS)}, "
        f"emotion {'|'.join(LABELS)}, level LO|MD|HI|XX"
    )
    official: ClassVar[int] = 7441
    rate: ClassVar[int | None] = SAMPLE_RATE
    channels: ClassVar[int | None] = 1

    language: Literal["en"] = parameter("en", about="spoken language, ISO 639-1 code")

    def folders(self, root: Path) -> list[Path]:
        """Return ``AudioWAV`` of the repository, cloned to ``root`` or to ``CREMA-D`` below it."""
        missing = "got no folder 'AudioWAV', expected a clone of the repository"
        return find_folders(root, (".", "CREMA-D"), "AudioWAV", self.name, missing)

    def is_skipped(self, path: Path) -> bool:
        """Return whether ``path`` is the clip without sound."""
        return path.stem == SILENT

    def clips(self, directory: Path | None) -> list[Path]:
        """Return the sound files, sorted.

        Raises:
            InputError: as `FileNameCorpus.clips`, or if any file is a pointer of Git LFS.
        """
        clips = super().clips(directory)
        if pointers := [path.name for path in clips if is_pointer(path)]:
            raise InputError(
                f"corpus 'cremad': {clips[0].parent}: got {len(pointers)} Git LFS pointer(s), expected sound "
                f"(git lfs pull): {shortlist(pointers)}"
            )
        return clips

    def rows(self, directory: Path | None) -> list[Row]:
        """Return a row for each of `clips`, in their order, with the genders of ``VideoDemographics.csv``.

        Raises:
            InputError: as `clips`, or if the table is unreadable.
        """
        genders = _genders(self._table(directory))
        return [replace(row, gender=genders.get(row.speaker, "")) for row in super().rows(directory)]

    def row(self, path: Path, parts: re.Match[str]) -> Row:
        """Return the row of a clip, without the gender."""
        actor, text, emotion = parts.groups()
        return Row(path.stem, path, LABELS[emotion], actor, text=TEXTS[text])

    def files(self, directory: Path | None) -> list[Path]:
        """Return the sound files and, if it exists, the table of genders; errors as in `clips`."""
        table = self._table(directory)
        return sorted([*self.clips(directory), *([table] if table.is_file() else [])])

    def gaps(self, names: Sequence[str]) -> list[str]:
        """Return the missing actors."""
        actors = {name[:4] for name in names}
        return [f"no clip of actor {actor}" for actor in ACTORS if actor not in actors]

    def findings(self, directory: Path | None) -> tuple[str, ...]:
        """Report also unknown genders."""
        table = self._table(directory)
        unknown = [] if table.is_file() else [f"the genders are unknown: no {DEMOGRAPHICS} lies beside AudioWAV"]
        return (*super().findings(directory), *unknown)

    def _table(self, directory: Path | None) -> Path:
        return self.folders(require_folder(directory, self.name, self.source))[0].with_name(DEMOGRAPHICS)


def _genders(table: Path) -> dict[str, str]:
    if not table.is_file():
        return {}
    try:
        # Spreadsheet programs write a byte-order mark.
        with table.open(encoding="utf-8-sig", newline="") as file:
            return {row["ActorID"]: GENDERS[row["Sex"]] for row in csv.DictReader(file)}
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"corpus 'cremad': {table}: got an unreadable table ({error}), "
            "expected columns ActorID and Sex (Male or Female)"
        ) from None
