"""The contract of a corpus."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from advser.parameters import Parameters

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
    language: str
    """ISO 639-1 code of what is spoken (a class variable where a corpus has one language)."""

    caveat: ClassVar[str] = ""
    """What a reader of any board on this corpus must be told; empty if nothing."""

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

    def digest(self, directory: Path | None) -> str:
        """Hash the names and contents of `files`."""
        digest = hashlib.sha256()
        for path in self.files(directory):
            digest.update(f"{path.name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()
