"""Berlin Database of Emotional Speech (EmoDB)."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import soundfile

from advser.audio import SAMPLE_RATE
from advser.corpora.base import Corpus, existing, shortlist
from advser.corpora.rows import Row, to_dataset
from advser.errors import InputError
from advser.parameters import parameter

if TYPE_CHECKING:
    from datasets import Dataset

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


class EmoDB(Corpus):
    """Berlin Database of Emotional Speech: ten speakers, ten German sentences, seven emotions, 535 clips."""

    title: ClassVar[str] = "Berlin EmoDB"
    licence: ClassVar[str] = "free for research, as distributed by TU Berlin; not redistributed here"
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

    language: Literal["de"] = parameter("de", about="ISO 639-1 code of what is spoken")

    def read(self, directory: Path | None) -> Dataset:
        """Return the clips of ``wav/``, sorted by name; every entry of `findings` is also given as a warning.

        Args:
            directory: what the archive unpacked to, its ``wav`` folder, or the folder that holds it as ``emodb``.

        Raises:
            InputError: if there is no ``wav`` folder or it has no clips, or files in it are not the corpus's.
        """
        for finding in self.findings(directory):
            warnings.warn(f"corpus 'emodb': {finding}", stacklevel=2)
        return to_dataset([_row(path) for path in self.files(directory)])

    def files(self, directory: Path | None) -> list[Path]:
        """Return the clips, sorted by name; errors as in `read`."""
        folder = _wav_folder(existing(directory, "emodb"))
        # Hidden files are left by desktops and by archives made on macOS.
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        extra = [path.name for path in found if not NAME.fullmatch(path.name)]
        if extra:
            raise InputError(
                f"corpus 'emodb': {folder}: {len(extra)} extra file(s): {shortlist(extra)} (allowed: names such as "
                f"03a01Fa.wav: speaker {'|'.join(GENDERS)}, text {'|'.join(TEXTS)}, emotion {'|'.join(LABELS)}, "
                "version letter)"
            )
        if not found:
            raise InputError(f"corpus 'emodb': {folder}: empty; the official archive has {sum(CLIPS.values())} clips")
        return found

    def findings(self, directory: Path | None) -> tuple[str, ...]:
        """Tell which speakers lack clips or have too many, and which files are not 16 kHz mono."""
        files = self.files(directory)
        counts = Counter(path.name[:2] for path in files)
        uneven = [f"speaker {who} {counts[who]} of {count}" for who, count in CLIPS.items() if counts[who] != count]
        odd = [described for path in files if (described := _odd_format(path))]
        return (
            *(
                [f"not the official {sum(CLIPS.values())} clips but {len(files)}: {', '.join(uneven)}"]
                if uneven
                else []
            ),
            *([f"{len(odd)} file(s) not 16 kHz mono (converted): {shortlist(odd)}"] if odd else []),
        )


def _wav_folder(directory: Path) -> Path:
    for folder in (directory / "wav", directory / "emodb" / "wav"):
        if folder.is_dir():
            return folder
    if directory.name == "wav" or any(NAME.fullmatch(path.name) for path in directory.iterdir()):
        return directory
    raise InputError(f"corpus 'emodb': {directory}: folder 'wav' not found; the official archive unpacks to it")


def _odd_format(path: Path) -> str:
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError:
        return ""  # decoding reports it, with all others that are unusable
    right = info.samplerate == SAMPLE_RATE and info.channels == 1
    return "" if right else f"{path.name}: {info.samplerate} Hz, {info.channels} channel(s)"


def _row(path: Path) -> Row:
    parts = NAME.fullmatch(path.name)
    assert parts is not None
    speaker, text, letter = parts.groups()
    return Row(path.stem, path, LABELS[letter], speaker, GENDERS[speaker], TEXTS[text])
