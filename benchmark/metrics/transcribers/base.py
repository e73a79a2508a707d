"""The contract of a speech recogniser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Self

from advser.audio.pcm import Pcm
from advser.plugins.parameters import Parameters


class Transcriber(Parameters, ABC):
    """A speech recogniser."""

    closed_text: ClassVar[bool] = False
    """Whether it uses the sentences of the corpus, so that its error rates compare with no other recogniser's."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions affect the transcripts."""

    places: ClassVar[frozenset[str]] = frozenset()
    """Parameters with the path of the model; its contents count (`fingerprint`), its path does not."""

    def fingerprint(self, language: str) -> str:
        """Hash the contents of the model's files, which are part of the keys of transcripts; empty without files."""
        return ""

    def on(self, device: str) -> Self:
        """Return the recogniser for use beside models on ``device`` (``cpu``, ``cuda``), an open choice settled."""
        return self

    @abstractmethod
    def unavailable(self, language: str) -> str | None:
        """Return why the recogniser cannot serve ``language`` (ISO 639-1) on this machine, or None if it can."""

    @abstractmethod
    def transcribe(self, clips: Iterable[Pcm], language: str, sentences: Sequence[str]) -> Iterator[str]:
        """Yield the transcript of each clip.

        Args:
            clips: clips (T,), int16, 16 kHz, mono.
            language: ISO 639-1 code.
            sentences: all distinct sentences of the corpus; only a closed-text recogniser may use them.
        """
