"""Interactive Emotional Dyadic Motion Capture database (IEMOCAP): the sound of its utterances."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self

from pydantic import model_validator

from advser.corpora.base import Corpus, existing, shortlist
from advser.corpora.filenames import first_with
from advser.corpora.rows import Row, to_dataset
from advser.errors import InputError
from advser.plugins.parameters import parameter

if TYPE_CHECKING:
    from datasets import Dataset

Emotion = Literal[
    "anger",
    "disgust",
    "excitement",
    "fear",
    "frustration",
    "happiness",
    "neutral",
    "other",
    "sadness",
    "surprise",
]

LABELS: Final[dict[str, Emotion | Literal[""]]] = {
    "ang": "anger",
    "dis": "disgust",
    "exc": "excitement",
    "fea": "fear",
    "fru": "frustration",
    "hap": "happiness",
    "neu": "neutral",
    "oth": "other",
    "sad": "sadness",
    "sur": "surprise",
    "xxx": "",
}
"""Code of ``dialog/EmoEvaluation`` → label; the annotators of ``xxx`` had no majority, so it has none."""

UTTERANCES: Final = 10_039
"""Of a complete copy, over all codes."""

TURN: Final = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(Ses0([1-5])[FM]_\w+_([FM])\w+)\s+(\w+)\s+\[.*\]\s*")
"""Line of ``dialog/EmoEvaluation``: times, utterance (session, speaker), code, dimensions."""

SAID: Final = re.compile(r"(Ses0[1-5][FM]_\w+) \[[\d.]+-[\d.]+\]:(.*)")
"""Line of ``dialog/transcriptions``: utterance, times, words."""

NOISE: Final = re.compile(r"\[[A-Z]+\]")
"""What of a transcription was not spoken, such as ``[LAUGHTER]``."""


@dataclass(frozen=True)
class _Turn:
    session: Path
    utterance: str
    speaker: str
    label: str

    @property
    def sound(self) -> Path:
        dialog = self.utterance.rpartition("_")[0]
        return self.session / "sentences" / "wav" / dialog / f"{self.utterance}.wav"

    def row(self, text: str) -> Row:
        return Row(self.utterance, self.sound, self.label, self.speaker, self.speaker[-1].lower(), text)


class IEMOCAP(Corpus):
    """IEMOCAP: ten English-speaking actors in five sessions of two, 10039 utterances, acted and improvised.

    A speaker is named by session and gender: ``3F`` is the woman of session 3. The two of a session are one group of
    the ``Npair`` protocols, so that ``5pair`` leaves one session out, and no dialogue is on both sides of a split.
    """

    title: ClassVar[str] = "IEMOCAP"
    licence: ClassVar[str] = "on request, for research, under the release form of USC SAIL"
    source: ClassVar[str] = "on request, see https://sail.usc.edu/iemocap/iemocap_release.htm"
    citation: ClassVar[str] = (
        "C. Busso, M. Bulut, C.-C. Lee, A. Kazemzadeh, E. Mower, S. Kim, J. N. Chang, S. Lee, S. S. Narayanan: "
        "IEMOCAP: Interactive emotional dyadic motion capture database. Language Resources and Evaluation 42(4), "
        "335-359, 2008."
    )
    speaker_pairs: ClassVar[tuple[tuple[str, ...], ...]] = tuple((f"{n}M", f"{n}F") for n in range(1, 6))

    language: Literal["en"] = parameter("en", about="ISO 639-1 code of what is spoken")
    merge_excited: bool = parameter(True, about="whether excitement counts as happiness")
    emotions: tuple[Emotion, ...] | None = parameter(
        ("anger", "happiness", "neutral", "sadness"),
        about="the labels that are kept; none: every utterance, those without a majority with an empty label",
        strict=False,
    )

    @model_validator(mode="after")
    def _kept_emotions_can_occur(self) -> Self:
        if self.merge_excited and "excitement" in (self.emotions or ()):
            raise ValueError("emotions: got 'excitement', expected with merge_excited: any other")
        return self

    def read(self, directory: Path | None) -> Dataset:
        """Return the kept utterances, sorted by session and name; every entry of `findings` is also given as a warning.

        Args:
            directory: what the archive unpacked to, or the folder that holds it as ``IEMOCAP_full_release``.

        Raises:
            InputError: if there is no session, a session lacks its sound, labels or transcriptions, a line of labels
                is of another form, or no utterance is left.
        """
        for finding in self.findings(directory):
            warnings.warn(f"corpus 'iemocap': {finding}", stacklevel=2)
        kept = self._kept(directory)
        texts = {name: text for session in _sessions(directory) for name, text in _said(session)}
        return to_dataset(
            [
                Row(
                    one.utterance,
                    one.sound,
                    one.label,
                    one.speaker,
                    one.speaker[-1].lower(),
                    texts.get(one.utterance, ""),
                )
                for one in kept
            ]
        )

    def files(self, directory: Path | None) -> list[Path]:
        """Return the tables and the sound of the kept utterances; errors as in `read`."""
        tables = [
            table
            for session in _sessions(directory)
            for folder in ("EmoEvaluation", "transcriptions")
            for table in _tables(session, folder)
        ]
        return sorted([*tables, *(one.sound for one in self._kept(directory))])

    def findings(self, directory: Path | None) -> tuple[str, ...]:
        """Tell which sessions and how many sounds and labels are missing."""
        sessions = _sessions(directory)
        turns = self._turns(directory)
        absent = [f"Session{n}" for n in range(1, 6) if f"Session{n}" not in [session.name for session in sessions]]
        lost = [one.utterance for one in turns if not one.sound.is_file()]
        labelled = {one.sound for one in turns}
        unlabelled = [path.stem for session in sessions for path in _sounds(session) if path not in labelled]
        found = []
        if len(turns) != UTTERANCES or absent:
            lacking = f": {', '.join(absent)} not found" if absent else ""
            found.append(f"not the official {UTTERANCES} utterances but {len(turns)}{lacking}")
        if lost:
            found.append(f"{len(lost)} utterance(s) have no sound file and are left out: {shortlist(lost)}")
        if unlabelled:
            found.append(f"{len(unlabelled)} sound file(s) have no label and are left out: {shortlist(unlabelled)}")
        return tuple(found)

    def _kept(self, directory: Path | None) -> list[_Turn]:
        wanted = self.emotions
        kept = [
            one for one in self._turns(directory) if one.sound.is_file() and (wanted is None or one.label in wanted)
        ]
        if not kept:
            labels = ", ".join(wanted) if wanted is not None else "any label"
            raise InputError(f"corpus 'iemocap': {directory}: no utterance with sound and with {labels}")
        return kept

    def _turns(self, directory: Path | None) -> list[_Turn]:
        merged = {"excitement": "happiness"} if self.merge_excited else {}
        turns = [turn for session in _sessions(directory) for turn in _labelled(session, merged)]
        return sorted(turns, key=lambda turn: turn.utterance)


def _sessions(directory: Path | None) -> list[Path]:
    root = existing(directory, "iemocap", IEMOCAP.source)
    missing = "folder 'Session1' not found; the archive unpacks to five such"
    return first_with(root, (".", "IEMOCAP_full_release"), "Session[1-5]", "iemocap", missing)


def _tables(session: Path, folder: str) -> list[Path]:
    found = sorted(path for path in (session / "dialog" / folder).glob("*.txt") if not path.name.startswith("."))
    if not found:
        raise InputError(f"corpus 'iemocap': {session}: dialog/{folder} not found or empty; one .txt a dialogue")
    return found


def _sounds(session: Path) -> list[Path]:
    found = sorted(path for path in session.glob("sentences/wav/*/*.wav") if not path.name.startswith("."))
    if not found:
        raise InputError(f"corpus 'iemocap': {session}: sentences/wav not found or empty; one folder a dialogue")
    return found


def _lines(table: Path) -> Iterator[tuple[int, str]]:
    return enumerate(table.read_text(encoding="utf-8", errors="replace").splitlines(), 1)


def _labelled(session: Path, merged: dict[str, str]) -> Iterator[_Turn]:
    for table in _tables(session, "EmoEvaluation"):
        for number, line in _lines(table):
            # Every other line is one annotator's own opinion.
            if not line.startswith("["):
                continue
            parts = TURN.fullmatch(line)
            if parts is None or parts[4] not in LABELS:
                raise InputError(
                    f"corpus 'iemocap': {table}, line {number}: got '{line}', expected [start - end], utterance, "
                    f"one of {', '.join(LABELS)}, [dimensions]"
                )
            utterance, number_of_session, gender, code = parts.groups()
            label = LABELS[code]
            yield _Turn(session, utterance, number_of_session + gender, merged.get(label, label))


def _said(session: Path) -> Iterator[tuple[str, str]]:
    for table in _tables(session, "transcriptions"):
        for _, line in _lines(table):
            if parts := SAID.fullmatch(line.strip()):
                yield parts[1], " ".join(NOISE.sub(" ", parts[2]).split())
