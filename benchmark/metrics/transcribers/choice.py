"""Choice of the recogniser for a language where a suite leaves it open."""

from __future__ import annotations

from dataclasses import dataclass

from advser.metrics.transcribers.base import Transcriber
from advser.plugins.registries import TRANSCRIBERS

PREFERENCE = ("faster-whisper", "pocketsphinx")
"""Names of the recognisers in order of preference."""


@dataclass(frozen=True)
class Choice:
    """A recogniser, or the reason for its absence.

    Attributes:
        transcriber: the recogniser, or None.
        name: its name in the registry, or ``none``.
        reason: why the preferred recognisers, or all, cannot serve; empty if the first can.
    """

    transcriber: Transcriber | None
    name: str
    reason: str


def choose(language: str) -> Choice:
    """Return the first recogniser that can serve ``language`` (ISO 639-1) on this machine, without downloads.

    faster-whisper is first, if its weights are cached; then pocketsphinx, if it has an acoustic model.
    """
    reasons: list[str] = []
    for name in PREFERENCE:
        transcriber = TRANSCRIBERS.get(name)()
        reason = transcriber.unavailable(language)
        if reason is None:
            return Choice(transcriber, name, "; ".join(reasons))
        reasons.append(reason)
    return Choice(None, "none", "; ".join(reasons))
