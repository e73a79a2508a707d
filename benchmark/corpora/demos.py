"""DEMoS, Italian emotions elicited by mood induction."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, Literal

from advser.corpora.filenames import FileNameCorpus, find_folders
from advser.corpora.rows import Row
from advser.plugins.parameters import parameter

LABELS: Final = {
    "col": "guilt",
    "dis": "disgust",
    "gio": "happiness",
    "neu": "neutral",
    "pau": "fear",
    "rab": "anger",
    "sor": "surprise",
    "tri": "sadness",
}
"""First three letters of the Italian word, after the last underscore of a file name → label."""

CLIPS: Final = {
    "anger": 1477,
    "disgust": 1678,
    "fear": 1156,
    "guilt": 1129,
    "happiness": 1395,
    "neutral": 332,
    "sadness": 1530,
    "surprise": 1000,
}
"""Clips of each label: 9365 emotional ones and the neutral ones."""


class DEMoS(FileNameCorpus):
    """DEMoS: 68 speakers of Italian, seven elicited emotions (9365 clips) and neutral speech (332).

    The corpus has no texts. Its authors publish no partition into training, development and test speakers, so it has no
    ``official`` split; `docs/corpora.md` describes the partition in use.
    """

    title: ClassVar[str] = "DEMoS"
    licence: ClassVar[str] = "on request to academic institutions, under its end-user licence agreement"
    source: ClassVar[str] = "on request, see https://zenodo.org/records/2544829"
    citation: ClassVar[str] = (
        "E. Parada-Cabaleiro, G. Costantini, A. Batliner, M. Schmitt, B. W. Schuller: DEMoS: an Italian emotional "
        "speech corpus. Language Resources and Evaluation 54, 341-383, 2020."
    )
    name: ClassVar[str] = "demos"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        rf"(?:(?:NP|PR)_)?([fm])_(\d\d)_({'|'.join(LABELS)})[0-9A-Za-z]{{3}}\.wav"
    )
    naming: ClassVar[str] = (
        "names such as PR_f_01_rab01a.wav, for neutral clips f_01_neu01a.wav: prototypical PR or not NP, "
        f"gender f|m, speaker, emotion {'|'.join(LABELS)}, number"
    )
    official: ClassVar[int] = sum(CLIPS.values())

    language: Literal["it"] = parameter("it", about="spoken language, ISO 639-1 code")

    def folders(self, root: Path) -> list[Path]:
        """Return ``DEMOS`` and, if it exists, ``NEU`` (neutral), in ``root`` or in ``wav_DEMoS`` below it."""
        missing = "got no folder 'DEMOS', expected 'DEMOS' and 'NEU' of wav_DEMoS.zip"
        folders = find_folders(root, (".", "wav_DEMoS"), "DEMOS", self.name, missing)
        neutral = folders[0].with_name("NEU")
        return [*folders, *([neutral] if neutral.is_dir() else [])]

    def row(self, path: Path, parts: re.Match[str]) -> Row:
        """Return the row of a clip; a speaker's name begins with the gender, such as ``f01``."""
        gender, number, emotion = parts.groups()
        return Row(path.stem, path, LABELS[emotion], gender + number, gender)

    def gaps(self, names: Sequence[str]) -> list[str]:
        """Return the emotions with missing or surplus clips."""
        counts = Counter(LABELS[parts[3]] for name in names if (parts := self.pattern.fullmatch(name)))
        return [f"{label} {counts[label]} of {count}" for label, count in CLIPS.items() if counts[label] != count]
