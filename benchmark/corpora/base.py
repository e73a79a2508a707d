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
(``f``, ``m`` or empty), ``text`` (what is said; may be empty), ``label`` (emotion), ``split`` (official split, or
empty)."""


class Corpus(Parameters, ABC):
    """A collection of labelled recordings, read from its official layout."""

    title: ClassVar[str]
    licence: ClassVar[str]
    source: ClassVar[str] = ""
    """Where a copy is had, or asked for; empty where nothing is to be had."""

    language: str
    """ISO 639-1 code of what is spoken (a ``Literal`` where a corpus has one language)."""

    caveat: ClassVar[str] = ""
    """What a reader of any board on this corpus must be told; empty if nothing."""

    caveat_of_words: ClassVar[str] = ""
    """What a reader of closed-text word error rates must be told too; empty if nothing."""

    speaker_pairs: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """The groups of speakers that the ``Npair`` protocols test together; empty: made from the genders."""

    @abstractmethod
    def read(self, directory: Path | None) -> Dataset:
        """Return the rows (`COLUMNS`) found in ``directory``; None for an embedded corpus.

        Raises:
            InputError: if the layout is not the official one; the message names what is missing or extra.
        """

    @abstractmethod
    def files(self, directory: Path | None) -> list[Path]:
        """Return every file that `read` depends on, sorted."""

    def findings(self, directory: Path | None) -> tuple[str, ...]:
        """Return in what ``directory`` departs from the official corpus without being unusable, a sentence each.

        A board on such a copy must say so, as it says `caveat`.
        """
        return ()

    def fetch(self) -> Path | None:
        """Return a folder with the corpus on this machine, downloaded if it is not there yet.

        Asked when no directory is given. None: nothing is fetched, because the corpus is embedded, licensed, or the
        user's own.

        Raises:
            InputError: if it cannot be downloaded, or what was downloaded is not the corpus.
        """
        return None

    def digest(self, directory: Path | None) -> str:
        """Hash the contents of `files` and their places in ``directory``."""
        files = self.files(directory)
        return contents_digest(files, directory or files[0].parent)


def existing(directory: Path | None, corpus: str, source: str = "") -> Path:
    """Return ``directory`` if it is one.

    Args:
        directory: what was given.
        corpus: the name in the registry.
        source: as `Corpus.source`.

    Raises:
        InputError: if none was given, or there is none at that path.
    """
    if directory is None:
        place = f" (to be had: {source})" if source else ""
        raise InputError(f"corpus '{corpus}': no directory given; say where it is with --data {corpus}=DIR{place}")
    if not directory.is_dir():
        raise InputError(f"corpus '{corpus}': {directory}: not found or not a directory")
    return directory


def shortlist(items: Sequence[str], most: int = 10) -> str:
    """Join the first ``most`` items for a one-line message, and give the number of the others."""
    rest = len(items) - most
    return "; ".join(items[:most]) + (f"; and {rest} more" if rest > 0 else "")
