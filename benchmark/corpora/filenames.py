"""Corpora whose file names hold the speaker, the emotion and the text."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import soundfile

from advser.corpora.base import EXAMPLES, Corpus, require_folder, shortlist
from advser.corpora.rows import Row, to_dataset
from advser.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

LEFTOVERS: Final = ("thumbs.db", "ehthumbs.db", "desktop.ini")
"""Files that Windows writes into folders, in lower case."""


class FileNameCorpus(Corpus):
    """Base of corpora that are read from the names of their sound files alone.

    A subclass defines the folders with sound, the pattern of a name, and the row of a name.
    """

    name: ClassVar[str]
    """Name in the registry."""

    pattern: ClassVar[re.Pattern[str]]
    """Pattern of a whole file name; any other name is refused."""

    naming: ClassVar[str]
    """Description of `pattern` for people: an example, and the values of its parts."""

    official: ClassVar[int]
    """Number of clips of a complete copy."""

    rate: ClassVar[int | None] = None
    """Sampling rate in Hz of an unconverted copy; None: unknown."""

    channels: ClassVar[int | None] = None
    """Channels of an unconverted copy; None: unknown, or mixed."""

    @abstractmethod
    def folders(self, root: Path) -> list[Path]:
        """Return the folders with sound below ``root``, the folder that the user gave.

        Raises:
            InputError: if there is none.
        """

    @abstractmethod
    def row(self, path: Path, parts: re.Match[str]) -> Row:
        """Return the row of a clip; ``parts`` is the match of its name with `pattern`."""

    def gaps(self, names: Sequence[str]) -> list[str]:
        """Return the missing and the surplus clips of a copy with these file names, one phrase each."""
        return []

    def is_skipped(self, path: Path) -> bool:
        """Return whether to leave out an official file that is known to be unusable."""
        return False

    def read(self, directory: Path | None) -> Dataset:
        """Return the clips, sorted by path.

        Raises:
            InputError: as `clips`.
        """
        return to_dataset(self.rows(directory))

    def rows(self, directory: Path | None) -> list[Row]:
        """Return a row for each of `clips`, in their order; errors as in `clips`."""
        return [self._row(path) for path in self.clips(directory)]

    def clips(self, directory: Path | None) -> list[Path]:
        """Return the sound files, sorted.

        Raises:
            InputError: if no directory is given, its layout is not the official one, or a file name has no place in
                the corpus.
        """
        root = require_folder(directory, self.name, self.source)
        folders = self.folders(root)
        paths = sorted(path for folder in folders for path in folder.iterdir() if not _is_leftover(path.name))
        extra = [f"{path.parent.name}/{path.name}" for path in paths if not self._has_official_name(path)]
        if extra:
            raise InputError(
                f"corpus '{self.name}': {root}: got {len(extra)} unexpected file(s): {shortlist(extra)}, "
                f"expected {self.naming}"
            )
        clips = [path for path in paths if not self.is_skipped(path)]
        if not clips:
            names = shortlist([folder.name for folder in folders])
            raise InputError(f"corpus '{self.name}': {root}: got {names} empty, expected {self.official} clips")
        return clips

    def files(self, directory: Path | None) -> list[Path]:
        """Return the sound files, sorted; errors as in `clips`."""
        return self.clips(directory)

    def findings(self, directory: Path | None) -> tuple[str, ...]:
        """Report missing, surplus and converted clips."""
        clips = self.clips(directory)
        gaps = self.gaps([path.name for path in clips])
        findings = []
        if gaps or len(clips) != self.official:
            details = f": {shortlist(gaps, EXAMPLES)}" if gaps else ""
            findings.append(f"the copy has {len(clips)} clips, the official corpus {self.official}{details}")
        converted = [described for path in clips if (described := self._converted_format(path))]
        if converted:
            findings.append(
                f"{len(converted)} file(s) are converted, the official format is {self._format()}: "
                f"{shortlist(converted, EXAMPLES)}"
            )
        return tuple(findings)

    def _has_official_name(self, path: Path) -> bool:
        return path.is_file() and self.pattern.fullmatch(path.name) is not None

    def _row(self, path: Path) -> Row:
        parts = self.pattern.fullmatch(path.name)
        assert parts is not None
        return self.row(path, parts)

    def _format(self) -> str:
        channels = {None: "", 1: " mono", 2: " stereo"}[self.channels]
        return f"{(self.rate or 0) / 1000:g} kHz{channels}"

    def _converted_format(self, path: Path) -> str:
        """Return the name and the format of a file that is not in the official format; otherwise an empty string."""
        if self.rate is None:
            return ""
        try:
            info = soundfile.info(path)
        except soundfile.LibsndfileError:
            return ""  # decoding reports it, with all other unusable files
        official = info.samplerate == self.rate and self.channels in (None, info.channels)
        return "" if official else f"{path.name}: {info.samplerate} Hz, {info.channels} channel(s)"


def _is_leftover(name: str) -> bool:
    """Return whether desktops (macOS, Windows) or archives leave files of that name."""
    return name.startswith(".") or name.casefold() in LEFTOVERS


def find_folders(root: Path, places: Sequence[str], pattern: str, corpus: str, missing: str) -> list[Path]:
    """Return the folders that match ``pattern``, sorted, from the first of ``places`` that has any.

    Args:
        root: the folder that the user gave.
        places: folders below it.
        pattern: glob of a folder's name.
        corpus: name of the corpus, for the error message.
        missing: the error message after the place: the absent folder, and its origin.

    Raises:
        InputError: if no place has any.
    """
    for place in places:
        folders = sorted(path for path in (root / place).glob(pattern) if path.is_dir())
        if folders:
            return folders
    raise InputError(f"corpus '{corpus}': {root}: {missing}")
