"""Which recogniser serves a language where a suite leaves the choice open."""

from __future__ import annotations

from dataclasses import dataclass

from advser.metrics.transcribers.base import Transcriber
from advser.plugins.registries import TRANSCRIBERS

PREFERENCE = ("faster-whisper", "pocketsphinx")
"""Names of the recognisers that are tried, the best first."""


@dataclass(frozen=True)
class Choice:
    """A recogniser, or the reason why there is none.

    Attributes:
        transcriber: the recogniser, or None.
        name: its name in the registry; ``none`` if there is none.
        reason: why the recognisers before it, or all, cannot serve; empty if the first one does.
    """

    transcriber: Transcriber | None
    name: str
    reason: str


def choose(language: str) -> Choice:
    """Return the first recogniser that can serve ``language`` (an ISO 639-1 code) on this machine as it is.

    That is faster-whisper where its weights are at hand, else pocketsphinx where it has an acoustic model. Nothing
    is fetched from the network.
    """
    reasons: list[str] = []
    for name in PREFERENCE:
        transcriber = TRANSCRIBERS.get(name)()
        reason = transcriber.unavailable(language)
        if reason is None:
            return Choice(transcriber, name, "; ".join(reasons))
        reasons.append(reason)
    return Choice(None, "none", "; ".join(reasons))
