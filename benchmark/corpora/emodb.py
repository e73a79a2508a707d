"""Berlin Database of Emotional Speech (EmoDB)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, Literal

from advser.audio.pcm import SAMPLE_RATE
from advser.corpora.fetch import fetch_archive
from advser.corpora.filenames import FileNameCorpus
from advser.corpora.rows import Row
from advser.errors import InputError
from advser.plugins.parameters import parameter

LABELS: Final = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "N": "neutral",
    "T": "sadness",
}
"""Emotion letter of a file name (the German word's initial) → label; ``fear`` is the corpus's anxiety/fear."""

TEXTS: Final = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}

GENDERS: Final = {
    "03": "m", "08": "f", "09": "f", "10": "m", "11": "m", "12": "m", "13": "f", "14": "f", "15": "m", "16": "f",
}  # fmt: skip

CLIPS: Final = {
    "03": 49, "08": 58, "09": 43, "10": 38, "11": 55, "12": 35, "13": 61, "14": 69, "15": 56, "16": 71,
}  # fmt: skip
"""Clips of each speaker in the official archive; 535 in all."""

NAME: Final = re.compile(rf"({'|'.join(GENDERS)})({'|'.join(TEXTS)})([{''.join(LABELS)}])[a-z]\.wav")
"""Speaker, text, emotion letter, version: ``03a01Fa.wav``."""

ADDRESS: Final = "http://emodb.bilderbar.info/download/download.zip"
"""The official archive."""

MEMBER: Final = re.compile(rf"(?:[^/]+/)*wav/{NAME.pattern}")
"""Members of the archive that are unpacked: the sound, without label files and listening-test scores."""

DIGEST: Final = "2b7bbf812d2fd75e9440d60b31f73c45f2950d15dd6b3c7c4fa100b39c1fe640"
"""`advser.store.digests.contents_digest` of the 535 official files in ``wav``, below the folder that holds it."""


class EmoDB(FileNameCorpus):
    """Berlin Database of Emotional Speech: ten speakers, ten German sentences, seven emotions, 535 clips."""

    title: ClassVar[str] = "Berlin EmoDB"
    licence: ClassVar[str] = "free for research, as distributed by TU Berlin; not redistributed here"
    source: ClassVar[str] = ADDRESS
    citation: ClassVar[str] = (
        "F. Burkhardt, A. Paeschke, M. Rolfes, W. Sendlmeier, B. Weiss: A Database of German Emotional Speech. "
        "Interspeech 2005, 1517-1520."
    )
    speaker_pairs: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("03", "13"),
        ("10", "14"),
        ("11", "09"),
        ("12", "16"),
        ("15", "08"),
    )
    name: ClassVar[str] = "emodb"
    pattern: ClassVar[re.Pattern[str]] = NAME
    naming: ClassVar[str] = (
        f"names such as 03a01Fa.wav: speaker {'|'.join(GENDERS)}, text {'|'.join(TEXTS)}, "
        f"emotion {'|'.join(LABELS)}, version letter"
    )
    official: ClassVar[int] = sum(CLIPS.values())
    rate: ClassVar[int | None] = SAMPLE_RATE
    channels: ClassVar[int | None] = 1

    language: Literal["de"] = parameter("de", about="spoken language, ISO 639-1 code")

    def fetch(self) -> Path:
        """Return the corpus in the user's cache; download the official archive (40 MB) if necessary.

        `DIGEST` verifies every sound file.

        Raises:
            InputError: as `advser.corpora.fetch.fetch_archive`.
        """
        return fetch_archive(self.name, ADDRESS, MEMBER, DIGEST)

    def folders(self, root: Path) -> list[Path]:
        """Return the ``wav`` folder: of the unpacked archive, of ``emodb`` below ``root``, or ``root`` itself."""
        for folder in (root / "wav", root / "emodb" / "wav"):
            if folder.is_dir():
                return [folder]
        if root.name == "wav" or any(NAME.fullmatch(path.name) for path in root.iterdir()):
            return [root]
        raise InputError(f"corpus 'emodb': {root}: got no folder 'wav', expected the unpacked official archive")

    def row(self, path: Path, parts: re.Match[str]) -> Row:
        """Return the row of a clip."""
        speaker, text, letter = parts.groups()
        return Row(path.stem, path, LABELS[letter], speaker, GENDERS[speaker], TEXTS[text])

    def gaps(self, names: Sequence[str]) -> list[str]:
        """Return the speakers with missing or surplus clips."""
        counts = Counter(name[:2] for name in names)
        return [
            f"speaker {speaker} {counts[speaker]} of {count}"
            for speaker, count in CLIPS.items()
            if counts[speaker] != count
        ]
