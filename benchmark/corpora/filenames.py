"""Corpora whose file names tell everything: speaker, emotion, what is said."""

from __future__ import annotations

import re
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import soundfile

from advser.corpora.base import Corpus, existing, shortlist
from advser.corpora.rows import Row, to_dataset
from advser.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset


class FileNameCorpus(Corpus):
    """Base of corpora that are read from the names of their sound files alone.

    A subclass says which folders hold the sound, what a name looks like, and which row it stands for.
    """

    name: ClassVar[str]
    """In the registry."""

    pattern: ClassVar[re.Pattern[str]]
    """What a file name looks like as a whole; any other is refused."""

    naming: ClassVar[str]
    """The same for people: an example, and what its parts may be."""

    official: ClassVar[int]
    """Number of clips of a complete copy."""

    rate: ClassVar[int | None] = None
    """Sampling rate in Hz of an unconverted copy; None: not known."""

    channels: ClassVar[int | None] = None
    """Channels of an unconverted copy; None: not known, or mixed."""

    @abstractmethod
    def folders(self, root: Path) -> list[Path]:
        """Return the folders with sound that there are below ``root``, what the user gave.

        Raises:
            InputError: if there is none.
        """

    @abstractmethod
    def row(self, path: Path, parts: re.Match[str]) -> Row:
        """Return the row of a clip; ``parts`` is the match of its name with `pattern`."""

    def gaps(self, names: Sequence[str]) -> list[str]:
        """Tell what a copy with these file names lacks or has too much of, a phrase each."""
        return []

    def skipped(self, path: Path) -> bool:
        """Tell whether an official file is left out because it is known to be unusable."""
        return False

    def read(self, directory: Path | None) -> Dataset:
        """Return the clips, sorted by path; every entry of `findings` is also given as a warning.

        Raises:
            InputError: as `clips`.
        """
        for finding in self.findings(directory):
            warnings.warn(f"corpus '{self.name}': {finding}", stacklevel=2)
        return to_dataset(self.rows(directory))

    def rows(self, directory: Path | None) -> list[Row]:
        """Return a row for each of `clips`, in their order; errors as there."""
        return [self._row(path) for path in self.clips(directory)]

    def clips(self, directory: Path | None) -> list[Path]:
        """Return the sound files, sorted.

        Raises:
            InputError: if none was given, its layout is not the official one, or files are not the corpus's.
        """
        root = existing(directory, self.name, self.source)
        folders = self.folders(root)
        # Hidden files are left by desktops and by archives made on macOS.
        found = sorted(path for folder in folders for path in folder.iterdir() if not path.name.startswith("."))
        extra = [f"{path.parent.name}/{path.name}" for path in found if not self._named(path)]
        if extra:
            raise InputError(
                f"corpus '{self.name}': {root}: {len(extra)} extra file(s): {shortlist(extra)} (expected {self.naming})"
            )
        kept = [path for path in found if not self.skipped(path)]
        if not kept:
            names = shortlist([folder.name for folder in folders])
            raise InputError(f"corpus '{self.name}': {root}: {names} empty; a complete copy has {self.official} clips")
        return kept

    def files(self, directory: Path | None) -> list[Path]:
        """Return the sound files, sorted; errors as in `clips`."""
        return self.clips(directory)

    def findings(self, directory: Path | None) -> tuple[str, ...]:
        """Tell what a copy lacks or has too much of, and which files were converted."""
        clips = self.clips(directory)
        gaps = self.gaps([path.name for path in clips])
        found = []
        if gaps or len(clips) != self.official:
            details = f": {shortlist(gaps)}" if gaps else ""
            found.append(f"not the official {self.official} clips but {len(clips)}{details}")
        odd = [described for path in clips if (described := self._odd_format(path))]
        if odd:
            found.append(f"{len(odd)} file(s) not {self._format()}, as the official ones are: {shortlist(odd)}")
        return tuple(found)

    def _named(self, path: Path) -> bool:
        return path.is_file() and self.pattern.fullmatch(path.name) is not None

    def _row(self, path: Path) -> Row:
        parts = self.pattern.fullmatch(path.name)
        assert parts is not None
        return self.row(path, parts)

    def _format(self) -> str:
        channels = {None: "", 1: " mono", 2: " stereo"}[self.channels]
        return f"{(self.rate or 0) / 1000:g} kHz{channels}"

    def _odd_format(self, path: Path) -> str:
        if self.rate is None:
            return ""
        try:
            info = soundfile.info(path)
        except soundfile.LibsndfileError:
            return ""  # decoding reports it, with all others that are unusable
        right = info.samplerate == self.rate and self.channels in (None, info.channels)
        return "" if right else f"{path.name}: {info.samplerate} Hz, {info.channels} channel(s)"


def first_with(root: Path, places: Sequence[str], inside: str, corpus: str, missing: str) -> list[Path]:
    """Return the folders ``inside`` (a glob) of the first of ``places`` below ``root`` that has any, sorted.

    Args:
        root: what the user gave.
        places: folders below it.
        inside: glob of a folder's name.
        corpus: name of the corpus, for the error.
        missing: what the error says is not found, and where it comes from.

    Raises:
        InputError: if none has any.
    """
    for place in places:
        found = sorted(path for path in (root / place).glob(inside) if path.is_dir())
        if found:
            return found
    raise InputError(f"corpus '{corpus}': {root}: {missing}")
