"""Interactive Emotional Dyadic Motion Capture database (IEMOCAP): the sound of its utterances."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self

from pydantic import model_validator

from advser.corpora.base import EXAMPLES, Corpus, require_folder, shortlist
from advser.corpora.filenames import find_folders
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
"""Code of ``dialog/EmoEvaluation`` → label; ``xxx``, without a majority of the annotators, has no label."""

UTTERANCES: Final = 10_039
"""Utterances of a complete copy, over all codes."""

TURN: Final = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(Ses0([1-5])[FM]_\w+_([FM])\w+)\s+(\w+)\s+\[.*\]\s*")
"""Line of ``dialog/EmoEvaluation``: times, utterance (with session and speaker), code, dimensions."""

TRANSCRIPT: Final = re.compile(r"(Ses0[1-5][FM]_\w+) \[[\d.]+-[\d.]+\]:(.*)")
"""Line of ``dialog/transcriptions``: utterance, times, words."""

NOISE: Final = re.compile(r"\[[A-Z]+\]")
"""Part of a transcription that was not spoken, such as ``[LAUGHTER]``."""


@dataclass(frozen=True)
class _Turn:
    """One labelled utterance.

    Attributes:
        session: folder of its session.
        utterance: its name.
        speaker: session and gender, such as ``3F``.
        label: emotion, or empty.
    """

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

    A speaker's name holds session and gender: ``3F`` is the woman of session 3. The two speakers of a session are one
    group of the ``Npair`` protocols: ``5pair`` leaves one session out, so no dialogue is on both sides of a split.
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

    language: Literal["en"] = parameter("en", about="spoken language, ISO 639-1 code")
    merge_excited: bool = parameter(True, about="count excitement as happiness")
    emotions: tuple[Emotion, ...] | None = parameter(
        ("anger", "happiness", "neutral", "sadness"),
        about="labels to use; none: every utterance, without a majority with an empty label",
        strict=False,
    )

    @model_validator(mode="after")
    def _check_emotions(self) -> Self:
        if self.merge_excited and "excitement" in (self.emotions or ()):
            raise ValueError("emotions: got 'excitement', expected another label, since merge_excited is true")
        return self

    def read(self, directory: Path | None) -> Dataset:
        """Return the selected utterances, sorted by session and name.

        Args:
            directory: the unpacked archive, or the folder that holds it as ``IEMOCAP_full_release``.

        Raises:
            InputError: if there is no session; a session lacks its sound, labels or transcriptions; a line of labels
                has another form; or no utterance remains.
        """
        self.findings(directory)  # refuses a session without sound
        turns = self._selected(directory)
        texts = {name: text for session in _sessions(directory) for name, text in _transcripts(session)}
        return to_dataset([turn.row(texts.get(turn.utterance, "")) for turn in turns])

    def files(self, directory: Path | None) -> list[Path]:
        """Return the tables and the sound of the selected utterances; errors as in `read`."""
        files = [turn.sound for turn in self._selected(directory)]
        for session in _sessions(directory):
            files += [*_tables(session, "EmoEvaluation"), *_tables(session, "transcriptions")]
        return sorted(files)

    def findings(self, directory: Path | None) -> tuple[str, ...]:
        """Report missing sessions, sound files and labels."""
        sessions = _sessions(directory)
        turns = self._turns(directory)
        absent = [f"Session{n}" for n in range(1, 6) if f"Session{n}" not in [session.name for session in sessions]]
        soundless = [turn.utterance for turn in turns if not turn.sound.is_file()]
        labelled = {turn.sound for turn in turns}
        unlabelled = [path.stem for session in sessions for path in _sounds(session) if path not in labelled]
        findings = []
        if len(turns) != UTTERANCES or absent:
            details = f": {', '.join(absent)} missing" if absent else ""
            findings.append(f"the copy has {len(turns)} utterances, the official corpus {UTTERANCES}{details}")
        if soundless:
            findings.append(
                f"{len(soundless)} utterance(s) have no sound file and are left out: {shortlist(soundless, EXAMPLES)}"
            )
        if unlabelled:
            findings.append(
                f"{len(unlabelled)} sound file(s) have no label and are left out: {shortlist(unlabelled, EXAMPLES)}"
            )
        return tuple(findings)

    def _selected(self, directory: Path | None) -> list[_Turn]:
        """Return the turns that have sound and, unless `emotions` is None, one of these labels."""
        turns = [turn for turn in self._turns(directory) if turn.sound.is_file()]
        if self.emotions is not None:
            turns = [turn for turn in turns if turn.label in self.emotions]
        if not turns:
            labels = ", ".join(self.emotions) if self.emotions is not None else "any label"
            raise InputError(f"corpus 'iemocap': {directory}: got no utterance, expected some with sound and {labels}")
        return turns

    def _turns(self, directory: Path | None) -> list[_Turn]:
        merged = {"excitement": "happiness"} if self.merge_excited else {}
        turns = [turn for session in _sessions(directory) for turn in _labelled(session, merged)]
        _refuse_repeated([turn.utterance for turn in turns], "dialog/EmoEvaluation")
        return sorted(turns, key=lambda turn: turn.utterance)


def _refuse_repeated(utterances: list[str], tables: str) -> None:
    again = [utterance for utterance, count in Counter(utterances).items() if count > 1]
    if again:
        raise InputError(
            f"corpus 'iemocap': {tables}: got {len(again)} utterance(s) in more than one line: {shortlist(again, 3)}, "
            "expected each utterance once"
        )


def _sessions(directory: Path | None) -> list[Path]:
    root = require_folder(directory, "iemocap", IEMOCAP.source)
    missing = "got no folder 'Session1', expected the five folders of the archive"
    return find_folders(root, (".", "IEMOCAP_full_release"), "Session[1-5]", "iemocap", missing)


def _tables(session: Path, folder: str) -> list[Path]:
    tables = sorted(path for path in (session / "dialog" / folder).glob("*.txt") if not path.name.startswith("."))
    if not tables:
        raise InputError(
            f"corpus 'iemocap': {session}: got no table in dialog/{folder}, expected one .txt per dialogue"
        )
    return tables


def _sounds(session: Path) -> list[Path]:
    sounds = sorted(path for path in session.glob("sentences/wav/*/*.wav") if not path.name.startswith("."))
    if not sounds:
        raise InputError(
            f"corpus 'iemocap': {session}: got no sound in sentences/wav, expected one folder per dialogue"
        )
    return sounds


def _lines(table: Path) -> Iterator[tuple[int, str]]:
    return enumerate(table.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1)


def _labelled(session: Path, merged: dict[str, str]) -> Iterator[_Turn]:
    for table in _tables(session, "EmoEvaluation"):
        for number, line in _lines(table):
            # Other lines hold the opinions of single annotators.
            if not line.startswith("["):
                continue
            parts = TURN.fullmatch(line)
            if parts is None or parts[4] not in LABELS:
                raise InputError(
                    f"corpus 'iemocap': {table}, line {number}: got '{line}', expected [start - end], utterance, "
                    f"code ({', '.join(LABELS)}), [dimensions]"
                )
            utterance, session_number, gender, code = parts.groups()
            label = LABELS[code]
            yield _Turn(session, utterance, session_number + gender, merged.get(label, label))


def _transcripts(session: Path) -> Iterator[tuple[str, str]]:
    for table in _tables(session, "transcriptions"):
        for _, line in _lines(table):
            if parts := TRANSCRIPT.fullmatch(line.strip()):
                yield parts[1], " ".join(NOISE.sub(" ", parts[2]).split())
