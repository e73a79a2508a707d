"""The contract of a corpus."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from advser.errors import InputError
from advser.plugins.parameters import Parameters
from advser.store.digests import contents_digest

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("clip", "audio", "speaker", "gender", "text", "label", "split")
"""Columns of a corpus: ``clip`` (unique name), ``audio`` (undecoded: bytes and path), ``speaker``, ``gender``
(``f``, ``m`` or empty), ``text`` (spoken words; may be empty), ``label`` (emotion), ``split`` (official split, or
empty)."""


class Corpus(Parameters, ABC):
    """A collection of labelled recordings in its official layout."""

    title: ClassVar[str]
    licence: ClassVar[str]
    source: ClassVar[str] = ""
    """Where to download or to request a copy; empty if nowhere."""

    language: str
    """ISO 639-1 code of the spoken language (a ``Literal`` where a corpus has one language)."""

    caveat: ClassVar[str] = ""
    """Warning that every board on this corpus shows; empty if none."""

    caveat_of_words: ClassVar[str] = ""
    """Further warning for boards with closed-text word error rates; empty if none."""

    speaker_pairs: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Groups of speakers that the ``Npair`` protocols test together; if empty, one man and one woman each."""

    @abstractmethod
    def read(self, directory: Path | None) -> Dataset:
        """Return the rows (`COLUMNS`) of the corpus in ``directory``; None for an embedded corpus.

        Raises:
            InputError: if the layout is not the official one; the message names missing or unexpected files.
        """

    @abstractmethod
    def files(self, directory: Path | None) -> list[Path]:
        """Return every file that `read` depends on, sorted."""

    def findings(self, directory: Path | None) -> tuple[str, ...]:
        """Return the differences of a usable ``directory`` from the official corpus, one sentence each.

        Every board on this copy shows them, as it shows `caveat`.
        """
        return ()

    def fetch(self) -> Path | None:
        """Return a cached folder with the corpus; download it first if necessary.

        Used when no directory is given. None: the corpus is embedded, licensed, or the user's own.

        Raises:
            InputError: if the download fails, or does not hold the corpus.
        """
        return None

    def digest(self, directory: Path | None) -> str:
        """Hash the contents of `files` and their places in ``directory``."""
        files = self.files(directory)
        return contents_digest(files, directory or files[0].parent)


def require_folder(directory: Path | None, corpus: str, source: str = "") -> Path:
    """Return ``directory``, an existing folder.

    Args:
        directory: the folder that the user gave, if any.
        corpus: its name in the registry.
        source: as `Corpus.source`.

    Raises:
        InputError: if the user gave no folder, or the folder does not exist.
    """
    if directory is None:
        place = f" (source: {source})" if source else ""
        raise InputError(f"corpus '{corpus}': got no directory, expected --data {corpus}=DIR{place}")
    if not directory.is_dir():
        raise InputError(f"corpus '{corpus}': got no folder '{directory}', expected the folder with the corpus")
    return directory


EXAMPLES = 3
"""Names in a finding, which each board repeats."""


def shortlist(items: Sequence[str], limit: int = 10) -> str:
    """Join the first ``limit`` items for a one-line message, and count the others."""
    rest = len(items) - limit
    return "; ".join(items[:limit]) + (f"; and {rest} more" if rest > 0 else "")
