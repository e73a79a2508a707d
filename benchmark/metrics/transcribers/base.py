"""The contract of a speech-to-text engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Self

from advser.audio.pcm import Pcm
from advser.plugins.parameters import Parameters


class Transcriber(Parameters, ABC):
    """A speech recogniser."""

    closed_text: ClassVar[bool] = False
    """Whether it is told the sentences of the corpus, so that its error rates compare with nothing else."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions decide the transcripts."""

    places: ClassVar[frozenset[str]] = frozenset()
    """Parameters that only say where the model lies: what it holds counts (`fingerprint`), its path does not."""

    def fingerprint(self, language: str) -> str:
        """Hash the contents of the model's files, so that another model gives other keys; empty if it has none here."""
        return ""

    def on(self, device: str) -> Self:
        """Return the engine as it works beside models on ``device`` (``cpu``, ``cuda``); a choice left open is made."""
        return self

    @abstractmethod
    def unavailable(self, language: str) -> str | None:
        """Return why the engine cannot serve ``language`` (an ISO 639-1 code) here, or None if it can."""

    @abstractmethod
    def transcribe(self, clips: Iterable[Pcm], language: str, sentences: Sequence[str]) -> Iterator[str]:
        """Yield the text of each clip ((T,) int16, 16 kHz, mono).

        Args:
            clips: the sound.
            language: ISO 639-1 code.
            sentences: all distinct sentences of the corpus; only a closed-text engine may look at them.
        """
