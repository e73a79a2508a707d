"""The embedded corpus of synthetic speech."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from advser.corpora.base import Corpus
from advser.corpora.rows import METADATA, read_metadata, to_dataset
from advser.errors import InputError
from advser.plugins.parameters import parameter

if TYPE_CHECKING:
    from datasets import Dataset

DATA = Path(__file__).parent / "demo_data"


class Demo(Corpus):
    """Synthetic English speech, 4 emotions × 6 voices × 6 sentences, shipped with AdvSER."""

    title: ClassVar[str] = "Demo (synthetic speech)"
    licence: ClassVar[str] = "MIT"
    citation: ClassVar[str] = "Rendered with espeak-ng 1.51 by tools/render_demo.py of AdvSER."
    caveat: ClassVar[str] = (
        "Synthetic speech: the emotions are settings of a speech synthesiser (rate, pitch, pitch range, loudness), "
        "so these numbers prove nothing about people, models or attacks."
    )
    caveat_of_words: ClassVar[str] = (
        "PocketSphinx misses words of voices without background noise, so its error rates fall when an attack adds "
        "noise."
    )
    speaker_pairs: ClassVar[tuple[tuple[str, ...], ...]] = (("m1", "f1"), ("m2", "f2"), ("m3", "f3"))

    language: Literal["en"] = parameter("en", about="spoken language, ISO 639-1 code")

    def read(self, directory: Path | None) -> Dataset:
        """Return the 144 embedded clips.

        Raises:
            InputError: if a directory is given, or if the installation lacks the data.
        """
        _refuse(directory)
        return to_dataset(read_metadata(DATA))

    def files(self, directory: Path | None) -> list[Path]:
        """Return the table and the clips; errors as in `read`."""
        _refuse(directory)
        return sorted([DATA / METADATA, *(row.path for row in read_metadata(DATA))])


def _refuse(directory: Path | None) -> None:
    if directory is not None:
        raise InputError(f"corpus 'demo': got directory {directory}, expected no --data demo=…: the corpus is embedded")
