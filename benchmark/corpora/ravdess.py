"""Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS): the audio-only speech."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import ClassVar, Final, Literal

from advser.corpora.filenames import FileNameCorpus, find_folders
from advser.corpora.rows import Row
from advser.plugins.parameters import parameter

LABELS: Final = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
"""Third part of a file name → label."""

TEXTS: Final = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
"""Fifth part of a file name → statement."""

ACTORS: Final = tuple(f"{actor:02}" for actor in range(1, 25))
"""Odd numbers are men, even numbers women."""

OFFICIAL: Final = frozenset(
    f"03-01-{emotion}-{intensity}-{text}-{repetition}-{actor}.wav"
    for emotion, intensity, text, repetition, actor in product(LABELS, ("01", "02"), TEXTS, ("01", "02"), ACTORS)
    if (emotion, intensity) != ("01", "02")  # neutral has one intensity
)


class RAVDESS(FileNameCorpus):
    """RAVDESS, audio-only speech: 24 actors, two English statements, eight emotions, 1440 clips."""

    title: ClassVar[str] = "RAVDESS (speech)"
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    source: ClassVar[str] = "https://zenodo.org/records/1188976, Audio_Speech_Actors_01-24.zip"
    citation: ClassVar[str] = (
        "S. R. Livingstone, F. A. Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS). "
        "PLoS ONE 13(5): e0196391, 2018."
    )
    name: ClassVar[str] = "ravdess"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        rf"03-01-({'|'.join(LABELS)})-(?:01|02)-({'|'.join(TEXTS)})-(?:01|02)-({'|'.join(ACTORS)})\.wav"
    )
    naming: ClassVar[str] = (
        "names such as 03-01-05-01-02-01-12.wav: audio-only 03, speech 01, emotion 01 to 08, intensity 01|02, "
        "statement 01|02, repetition 01|02, actor 01 to 24"
    )
    official: ClassVar[int] = len(OFFICIAL)
    rate: ClassVar[int | None] = 48_000

    language: Literal["en"] = parameter("en", about="spoken language, ISO 639-1 code")

    def folders(self, root: Path) -> list[Path]:
        """Return ``Actor_01`` to ``Actor_24``, in ``root`` or in the archive's folder below it."""
        missing = "got no folder 'Actor_01', expected the 24 folders of the archive"
        return find_folders(root, (".", "Audio_Speech_Actors_01-24"), "Actor_*", self.name, missing)

    def row(self, path: Path, parts: re.Match[str]) -> Row:
        """Return the row of a clip."""
        emotion, text, actor = parts.groups()
        return Row(path.stem, path, LABELS[emotion], actor, "m" if int(actor) % 2 else "f", TEXTS[text])

    def gaps(self, names: Sequence[str]) -> list[str]:
        """Return the missing and the surplus clips."""
        present = set(names)
        missing = [f"{name} is missing" for name in sorted(OFFICIAL - present)]
        return missing + [f"{name} is surplus" for name in sorted(present - OFFICIAL)]
